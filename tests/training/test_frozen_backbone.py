"""Frozen backbone: bitwise unchanged, and training on features that are computed once.

The tests train a ResNet of four narrow blocks on random patients, whose images are brighter in grade III.
"""

import jax
import numpy as np
import pytest
from model_variables import same

from configs import grade_resnet50
from lgg_jax import models, parallel, train
from lgg_jax.data import pipeline
from lgg_jax.data.cases import make_case
from lgg_jax.data.volume import Geometry, Volume
from lgg_jax.tasks import classification
from lgg_jax.training import state
from lgg_jax.training.optimizer import create_optimizer

SIZE = 32


def frozen_config(**fields):
    config = grade_resnet50.get_config()
    off = {f"augment.{name}": 0.0 for name in config.augment} | {"augment.crop_scale": (1.0, 1.0)}
    config.update_from_flattened_dict({
        **off, "data.size": SIZE, "model.hidden": (4,), "optimizer.learning_rate": 1e-2, "train.batch_size": 8,
        "eval.batch_size": 4, **fields})  # fmt: skip
    return config


@pytest.fixture(scope="module")
def patients() -> list:
    rng, cases = np.random.default_rng(0), []
    for number in range(3):
        image = np.zeros((5, 8, 8, 3), np.uint8)
        scan = Volume(f"{number}", image, np.ones(image.shape[:3], bool), np.arange(5, dtype=np.int32), {})
        images = rng.normal(number % 2, size=(5, SIZE, SIZE, 3)).astype(np.float16)
        labels, clinical = [number % 2] * 5, rng.normal(size=3)
        cases.append(make_case(scan, Geometry(0, 0, 8, 8, 8, SIZE), images, labels, clinical))
    return cases


@pytest.fixture(scope="module")
def start(small_resnet, patients):
    """A model with a frozen backbone, its initial variables, and the slices."""
    config = frozen_config()
    model = models.create_model(config.model, parallel.AXIS, config.optimizer.frozen)
    slices = pipeline.load_slices(patients)
    inputs = classification.inputs(pipeline.sample(slices))
    return model, state.initial_variables(config, model, inputs), slices


def trained(start, slices, **fields) -> state.TrainState:
    config, (model, variables, _) = frozen_config(**fields), start
    optimizer = create_optimizer(config.optimizer, 3)
    after = state.create_state(config.optimizer, optimizer, variables)
    step = parallel.map_step(train.make_train_step(config, model, optimizer))
    for batch in pipeline.train_batches(slices, config, 0, 3):
        after, _ = step(after, parallel.shard(batch))
    return after


@pytest.fixture(scope="module")
def on_images(start) -> state.TrainState:
    return trained(start, start[2])


def test_a_frozen_backbone_is_bitwise_unchanged(start, on_images):
    before = start[1]
    assert same(on_images.params["backbone"], before["params"]["backbone"])
    assert same(on_images.batch_stats["backbone"], before["batch_stats"]["backbone"])
    for name, part in (("params", on_images.params), ("batch_stats", on_images.batch_stats)):
        for path, leaf in jax.tree.leaves_with_path(part["head"]):
            assert not np.array_equal(leaf, dict(jax.tree.leaves_with_path(before[name]["head"]))[path]), path


def test_training_on_cached_features_equals_training_on_images(start, on_images, patients):
    model, variables, slices = start
    cached, cases = classification.cached(frozen_config(), variables, slices, patients, model)
    assert cached.image.shape == (15, 32) and [case.images.shape for case in cases] == [(5, 32)] * 3
    np.testing.assert_array_equal(cached.label, slices.label)
    after = trained(start, cached)
    for ours, expected in ((after.params, on_images.params), (after.batch_stats, on_images.batch_stats)):
        assert same(ours["backbone"], expected["backbone"])
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), ours["head"], expected["head"]
        )
    # Scores from features equal scores from images.
    predict = classification.predictor(models.create_model(frozen_config().model), 4)
    for image, feature in zip(patients, cases, strict=True):
        tables = [classification.slice_table(predict, after.variables(), case) for case in (image, feature)]
        np.testing.assert_allclose(tables[0]["logit"], tables[1]["logit"], atol=1e-4)
        assert tables[0]["logit"].std() > 1e-3


def test_a_backbone_that_is_trained_has_no_cached_features(start, patients):
    model, variables, slices = start
    config = frozen_config(**{"optimizer.frozen": ()})
    assert classification.cached(config, variables, slices, patients, model) == (slices, patients)


def test_the_logits_depend_on_clinical_values(start, patients):
    _, variables, _ = start
    predict = classification.predictor(models.create_model(frozen_config().model), 4)
    table = classification.slice_table(predict, variables, patients[0])
    other = make_case(patients[0].scan, patients[0].geometry, patients[0].images, patients[0].labels, np.ones(3) * 5)
    moved = classification.slice_table(predict, variables, other)
    assert (np.abs(table["logit"] - moved["logit"]) > 1e-3).all()
