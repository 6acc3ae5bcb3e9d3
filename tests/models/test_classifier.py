"""Classifier: head, clinical values, frozen parts, and the input that pretrained weights expect."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from model_variables import count, random_variables, same, shapes

from configs import default
from lgg_jax import models
from lgg_jax import workdir as workdir_lib
from lgg_jax.errors import UserError
from lgg_jax.models.classifier import Head, backbone_input
from lgg_jax.training.start import resolve
from lgg_jax.weights.pretrained import from_zscore, read_pretrained

pytestmark = pytest.mark.usefixtures("small_resnet")
RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(4, 32, 32, 3)).astype(np.float32)
CLINICAL = RNG.normal(size=(4, 5)).astype(np.float32)


def config(**fields):
    result = default.get_config()
    result.update_from_flattened_dict({"model.name": "classifier", "model.hidden": (6,), **fields})
    return result


@pytest.fixture(scope="module")
def model(small_resnet):
    return models.create_model(config(**{"model.dropout": 0.5}).model)


@pytest.fixture(scope="module")
def variables(model):
    return random_variables(model, IMAGES, CLINICAL, train=False)


@pytest.mark.parametrize("order, scale, expected", [
    ("RGB", (1.0, 1.0, 1.0), [1, 2, 3]), ("RGB", (2.0, 3.0, 4.0), [2, 6, 12]), ("BGR", (2.0, 3.0, 4.0), [6, 6, 4]),
])  # fmt: skip
def test_channel_order_and_scale_of_the_backbone_input(order, scale, expected):
    image = np.broadcast_to(np.float32([1, 2, 3]), (1, 2, 2, 3))
    np.testing.assert_array_equal(backbone_input(image, order, scale)[0, 0, 0], expected)


def test_number_of_parameters(monkeypatch):
    monkeypatch.setattr("lgg_jax.models.resnet.BLOCKS", (3, 4, 6, 3))
    monkeypatch.setattr("lgg_jax.models.resnet.WIDTHS", (64, 128, 256, 512))
    full = models.create_model(config(**{"model.hidden": (256,)}).model)
    sizes = {name: count(part) for name, part in shapes(full, IMAGES, CLINICAL, train=False)["params"].items()}
    # A layer of 256 with its normalisation, the clinical layer of 16, and one logit from both.
    assert sizes == {"backbone": 23_508_032, "head": 2048 * 256 + 2 * 256 + (5 + 1) * 16 + 256 + 16 + 1}


def test_logits_of_an_image_equal_those_of_its_features(model, variables):
    features = model.apply(variables, IMAGES, method=model.features)
    assert features.shape == (4, 32) and features.dtype == jnp.float32
    backbone = {name: part["backbone"] for name, part in variables.items()}
    maps = model.backbone.apply(backbone, IMAGES, train=False)
    np.testing.assert_allclose(features, maps[-1].mean(axis=(1, 2)), rtol=1e-5)
    logits = model.apply(variables, IMAGES, CLINICAL, train=False)
    assert logits.shape == (4,) and logits.dtype == jnp.float32
    np.testing.assert_allclose(logits, model.apply(variables, features, CLINICAL, train=False), rtol=1e-5)


def test_the_logits_depend_on_clinical_values():
    head, features = Head((6,), 0.0, None), IMAGES.reshape(4, -1)[:, :8]
    variables = head.init(jax.random.key(0), features, CLINICAL, False)
    logits = head.apply(variables, features, CLINICAL, False)
    moved = head.apply(variables, features, CLINICAL + np.eye(4, 5)[[0]], False)
    assert (np.abs(moved - logits) > 1e-4).any()
    gradient = jax.grad(lambda values: head.apply(variables, features, values, False).sum())(CLINICAL)
    assert (np.abs(gradient).max(axis=1) > 0).all(), "every row depends on its own values"


def test_without_clinical_values_the_head_has_no_layer_for_them():
    head, features = Head((6,), 0.0, None), IMAGES.reshape(4, -1)[:, :8]
    variables = head.init(jax.random.key(0), features, np.zeros((4, 0)), False)
    assert set(variables["params"]) == {"dense0", "norm0", "output"}
    assert head.apply(variables, features, np.zeros((4, 0)), False).shape == (4,)


def test_head_against_values_computed_by_hand():
    head, features = Head((), 0.0, None), np.float32([[1, 2], [3, 4]])
    params = {"clinical": {"kernel": np.eye(1, 16, dtype=np.float32), "bias": np.zeros(16, np.float32)},
              "output": {"kernel": np.arange(18, dtype=np.float32)[:, None], "bias": np.float32([0.5])}}  # fmt: skip
    logits = head.apply({"params": params}, features, np.float32([[10], [-10]]), False)
    np.testing.assert_allclose(logits, [2 + 20 + 0.5, 4 + 0.5])


def train(model, variables, key=0):
    rngs = {"dropout": jax.random.key(key)}
    logits, updated = model.apply(variables, IMAGES, CLINICAL, train=True, mutable=["batch_stats"], rngs=rngs)
    return np.asarray(logits), updated["batch_stats"]


def test_training_updates_statistics_and_applies_dropout(model, variables):
    (first, stats), (second, _), (again, _) = (train(model, variables, key) for key in (0, 1, 0))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - second).max() > 1e-3
    assert not same(stats["backbone"], variables["batch_stats"]["backbone"])
    assert not same(stats["head"], variables["batch_stats"]["head"])


@pytest.mark.parametrize("fields, frozen", [({"model.fixed_norm": ("backbone",)}, ()), ({}, ("backbone",))])
def test_statistics_of_a_fixed_or_frozen_backbone_are_unchanged(variables, fields, frozen):
    _, stats = train(models.create_model(config(**fields).model, frozen=frozen), variables)
    assert same(stats["backbone"], variables["batch_stats"]["backbone"])
    assert not same(stats["head"], variables["batch_stats"]["head"])


def test_input_features_bypass_the_backbone(model, variables):
    """The statistics of the backbone are returned unchanged, so that a checkpoint contains them."""
    rngs = {"dropout": jax.random.key(0)}
    _, updated = model.apply(variables, np.ones((4, 32)), CLINICAL, train=True, mutable=["batch_stats"], rngs=rngs)
    assert same(updated["batch_stats"]["backbone"], variables["batch_stats"]["backbone"])
    assert not same(updated["batch_stats"]["head"], variables["batch_stats"]["head"])


def test_a_resolved_config_contains_what_its_weights_expect(weights, tmp_path):
    resolved = resolve(config(**{"model.pretrained": str(weights)}))
    weights = read_pretrained(weights)
    model = models.create_model(resolved.model)
    assert (model.backbone.stride_on_first, model.backbone.epsilon, model.input_order) == (True, 1e-3, "BGR")
    scaled = backbone_input(IMAGES, model.input_order, model.input_scale)
    np.testing.assert_allclose(scaled, from_zscore(IMAGES, weights), rtol=1e-6)
    assert np.abs(scaled).mean() > 10, "the range of Keras"
    # The same after a workdir has stored it.
    workdir_lib.begin(tmp_path, resolved, {}, 1)
    assert models.create_model(workdir_lib.read_config(tmp_path).model) == model
    workdir_lib.check(tmp_path, resolve(resolved))


def test_a_fine_tuning_run_has_the_input_of_the_first_run(weights, tmp_path):
    """It starts from the weights of the first run, so its config need not name the file of pretrained weights again."""
    first = resolve(config(**{"model.pretrained": str(weights)}))
    workdir_lib.begin(tmp_path, first, {}, 1)
    second = resolve(config(init_from=str(tmp_path)))
    assert models.create_model(second.model) == models.create_model(first.model)
    workdir_lib.begin(tmp_path / "second", second, {}, 1)
    workdir_lib.check(tmp_path / "second", resolve(config(init_from=str(tmp_path))))


def test_without_weights_a_config_is_unchanged():
    for name in ("classifier", "unet", "unet_resnet50"):
        plain = config(**{"model.name": name})
        assert resolve(plain) == plain


@pytest.mark.parametrize("fields, message", [
    ({"model.name": "vgg"}, "config.model.name='vgg' is unknown; choose one of unet, unet_resnet50, classifier"),
    ({"model.name": "unet", "model.pretrained": "w"}, "config.model.name='unet' has no pretrained part"),
    ({"data.context": 1}, "config.data.context=1: .* takes 3 channels"),
    ({"data.channels": ("flair", "t2")}, r"\('flair', 't2'\): config.model.name='classifier' takes 3 channels"),
    ({"data.channels": ("t1", "flair", "adc")}, r"\('t1', 'flair', 'adc'\) does not name different sequences; choose"),
    ({"data.channels": ("t1", "t1"), "model.name": "unet"}, "does not name different sequences"),
    ({"data.channels": (), "model.name": "unet"}, "does not name different sequences"),
    ({"data.context": 1, "model.name": "unet_resnet50"}, "config.data.context=1: .* takes 3 channels"),
    ({"model.pretrained": "nowhere.safetensors"}, "cannot read nowhere.safetensors"),
    ({"init_from": "nowhere"}, "cannot read nowhere/config.json"),
])  # fmt: skip
def test_errors_that_a_user_can_fix(fields, message):
    with pytest.raises(UserError, match=message):
        resolve(config(**fields))
