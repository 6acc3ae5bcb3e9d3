"""U-Net with a ResNet50 encoder: shapes, gradients, the classification head and frozen modules."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from model_variables import random_variables, shapes

from configs import default
from lgg_jax import models, parallel, train
from lgg_jax.errors import UserError
from lgg_jax.tasks import segmentation
from lgg_jax.training import state
from lgg_jax.training.optimizer import create_optimizer

compiled = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})  # compiles in half the time
pytestmark = pytest.mark.usefixtures("small_resnet")
IMAGES = np.random.default_rng(0).normal(size=(3, 32, 64, 3)).astype(np.float32)


def create(frozen=(), **fields):
    config = default.get_config().model
    config.update({"name": "unet_resnet50", "features": 2, "hidden": (6,), **fields})
    return models.create_model(config, frozen=frozen)


@pytest.fixture(scope="module")
def model(small_resnet):
    return create(grade_head=True)


@pytest.fixture(scope="module")
def variables(model):
    return random_variables(model, IMAGES, train=False)


@pytest.fixture
def full_size(monkeypatch):
    monkeypatch.setattr("lgg_jax.models.resnet.BLOCKS", (3, 4, 6, 3))
    monkeypatch.setattr("lgg_jax.models.resnet.WIDTHS", (64, 128, 256, 512))


@pytest.mark.parametrize("dtype, height, width", [("float32", 32, 64), ("bfloat16", 224, 224)])
def test_shape_and_dtype_of_the_output(full_size, dtype, height, width):
    images = np.zeros((2, height, width, 3), np.float32)
    for head in (False, True):
        model = create(dtype=dtype, features=16, grade_head=head)
        run = lambda model=model: model.init_with_output(jax.random.key(0), images, train=False)  # noqa: E731
        output, variables = jax.eval_shape(run)
        mask = output["mask"] if head else output
        assert mask.shape == (2, height, width) and mask.dtype == jnp.float32
        assert ("head" in variables["params"]) == head
        if head:
            assert output["label"].shape == (2,) and output["label"].dtype == jnp.float32
        widths = [variables["params"][f"decoder{level}"]["conv0"]["kernel"].shape[-2:] for level in range(5)]
        # The upsampled features and the encoder's feature map; there is none at full resolution.
        assert widths == [(16, 16), (32 + 64, 32), (64 + 256, 64), (128 + 512, 128), (256 + 1024, 256)]


def test_the_encoder_has_the_variables_of_the_classifier_s_backbone(model):
    config = default.get_config().model
    config.name = "classifier"
    images = IMAGES, np.zeros((3, 0), np.float32)
    classifier = shapes(models.create_model(config), *images, train=False)
    for name in ("params", "batch_stats"):
        assert shapes(model, IMAGES, train=False)[name]["backbone"] == classifier[name]["backbone"]


def test_a_side_that_the_stride_does_not_divide():
    with pytest.raises(UserError, match=r"48×64 pixels do not fit .* stride of 32.* multiples of 32"):
        shapes(create(), np.zeros((1, 48, 64, 3), np.float32), train=False)


def test_every_module_has_a_gradient_from_its_output(model, variables):
    """The mask depends on every kernel except the head's; the label depends on the encoder's and the head's."""

    @compiled
    def gradients(params):
        def total(params, name):
            output = model.apply(variables | {"params": params}, IMAGES, train=False)[name]
            return (output**2).sum()

        return {name: jax.grad(total)(params, name) for name in ("mask", "label")}

    for name, tree in gradients(variables["params"]).items():
        used = {path[0] for path, leaf in traverse_util.flatten_dict(tree).items() if np.abs(leaf).max() > 0}
        assert ("head" in used) == (name == "label")
        assert ("output" in used) == ("decoder1" in used) == (name == "mask")
        unused = {path for path, leaf in traverse_util.flatten_dict(tree["backbone"]).items()
                  if path[-1] == "kernel" and not np.abs(leaf).max()}  # fmt: skip
        assert not unused


def test_mask_and_image_have_the_same_position(model, variables):
    """A change in one corner of the image changes the mask most in this corner: nothing is shifted or mirrored."""
    apply = compiled(lambda x: model.apply(variables, x, train=False)["mask"])
    changed = IMAGES.copy()
    changed[0, :8, -8:] += 3
    moved = np.abs(apply(changed) - apply(IMAGES))
    assert not moved[1:].any()
    assert moved[0, :8, -8:].mean() > 3 * moved[0, 16:, :32].mean()


def test_only_frozen_statistics_are_unchanged(variables):
    model = create(frozen=("backbone", "decoder2"), grade_head=True, dropout=0.5)

    @compiled
    def train(variables):
        rngs = {"dropout": jax.random.key(0)}
        return model.apply(variables, IMAGES, train=True, mutable=["batch_stats"], rngs=rngs)[1]["batch_stats"]

    after, before = train(variables), variables["batch_stats"]
    for name in before:
        same = [np.array_equal(a, b) for a, b in zip(*map(jax.tree.leaves, (after[name], before[name])), strict=True)]
        assert all(same) if name in ("backbone", "decoder2") else not any(same), name


def test_frozen_parts_of_the_encoder_are_bitwise_unchanged(small_resnet):
    """Parameters and statistics, also with weight decay; all other modules change."""
    config = default.get_config()
    config.model.update({"name": "unet_resnet50", "features": 2})
    config.optimizer.update({"name": "adamw", "weight_decay": 0.1, "backbone_rate": 0.5})
    frozen = {"conv_stem", "norm_stem", "stage1_block0"}
    batch = {"image": IMAGES, "mask": np.float32(IMAGES[..., 1] > 0.5), "weight": np.ones(len(IMAGES), np.float32)}
    before, gradients = None, {}
    for names in ((), tuple(f"backbone/{name}" for name in sorted(frozen))):
        config.optimizer.frozen = names
        model = models.create_model(config.model, parallel.AXIS, names)
        before = before or state.initial_variables(config, model, (IMAGES[:1],))
        optimizer = create_optimizer(config.optimizer, 5)
        step = parallel.map_step(train.make_train_step(config, model, optimizer))
        after, metrics = step(state.create_state(config.optimizer, optimizer, before), parallel.shard(batch))
        gradients[names] = float(metrics["grad_norm"][0])
    for name, part in (("params", after.params), ("batch_stats", after.batch_stats)):
        modules = part.pop("backbone") | part
        assert frozen & set(modules)
        for module, leaves in modules.items():
            first = before[name].get(module, before[name]["backbone"].get(module))
            pairs = zip(*map(jax.tree.leaves, (leaves, first)), strict=True)
            moved = [not np.array_equal(a, b) for a, b in pairs]
            assert not any(moved) if module in frozen else all(moved), (name, module)
    assert 0 < gradients[names] < gradients[()], "the gradient of a frozen part was computed"


def test_segmentation_takes_images_alone(variables):
    """In training and in prediction."""
    without_head = create()
    variables = {name: {k: v for k, v in part.items() if k != "head"} for name, part in variables.items()}
    probability = segmentation.predictor(without_head, 2)(variables, IMAGES)
    assert probability.shape == IMAGES.shape[:3] and 0 < probability.min() < probability.max() < 1
    inputs = segmentation.inputs({"image": IMAGES, "clinical": np.zeros((3, 0))})
    jax.eval_shape(lambda: without_head.apply(variables, *inputs, train=True, mutable=["batch_stats"]))
