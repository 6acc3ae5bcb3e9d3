"""Tensors of other libraries as variables of ResNet50: the biases, and what is said of tensors that do not fit."""

from pathlib import Path

import numpy as np
import pytest

from lgg_jax.errors import UserError
from lgg_jax.weights.files import Foreign
from lgg_jax.weights.names import LAYOUTS, described, recognise, tensors_of, translate

KERAS, OLD_KERAS, TORCHVISION = LAYOUTS


def foreign(layout=TORCHVISION, num_classes=0, layers=None) -> Foreign:
    """A file of zeros that take no memory."""
    shapes = tensors_of(layout, num_classes)
    tensors = {name: np.broadcast_to(np.float32(0), shape) for name, (_, shape) in shapes.items()}
    return Foreign(Path("weights"), layout.library, tensors, layers or {})


def with_biases(layout=KERAS) -> Foreign:
    made = foreign(layout)
    kernels = [name for name in made.tensors if name.endswith("/kernel")]
    for name in kernels:
        made.tensors[name.replace("kernel", "bias")] = np.arange(made.tensors[name].shape[-1], dtype=np.float32)
    return made


@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_is_recognised_with_or_without_the_classes(layout):
    assert recognise(foreign(layout)) is layout
    for asked in (0, 1000):
        variables = translate(foreign(layout, 1000), layout, asked)
        assert ("head" in variables["params"]) == bool(asked)
    assert len(tensors_of(layout, 1000)) == 53 * 5 + 2


def test_biases_go_into_the_running_mean():
    made = with_biases()
    made.tensors["conv3_block1_0_bn/moving_mean"] = np.full(512, 7, np.float32)
    stats = translate(made, KERAS, 0)["batch_stats"]
    np.testing.assert_array_equal(stats["stage2_block0"]["norm_proj"]["mean"], 7 - np.arange(512))
    np.testing.assert_array_equal(stats["norm_stem"]["mean"], -np.arange(64))
    np.testing.assert_array_equal(stats["norm_stem"]["var"], np.zeros(64))


def message(made: Foreign, num_classes: int = 0) -> str:
    with pytest.raises(UserError) as caught:
        translate(made, recognise(made), num_classes)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_every_tensor_that_does_not_fit_is_listed():
    made = foreign()
    del made.tensors["layer1.0.conv1.weight"], made.tensors["bn1.bias"]
    made.tensors["conv1.weight"] = np.zeros((7, 7, 1, 64), np.float32)
    made.tensors["layer4.3.conv1.weight"] = np.zeros(3, np.float32)
    made.tensors["bn1.weight"] = np.full(64, np.nan, np.float32)
    assert message(made) == (
        "weights is no ResNet50 in torchvision's layout: 2 missing: bn1.bias, layer1.0.conv1.weight; "
        "1 extra: layer4.3.conv1.weight; 1 of another shape: conv1.weight (7, 7, 1, 64) for (7, 7, 3, 64); "
        "1 not finite: bn1.weight; pass the weights of a ResNet50 (with 1000 classes for --include_top)"
    )


def test_a_bias_that_is_missing_among_others():
    made = with_biases(OLD_KERAS)
    del made.tensors["res2a_branch1/bias"]
    assert "1 missing: res2a_branch1/bias;" in message(made)


def test_another_architecture_is_listed_as_far_as_one_can_read():
    vgg = {f"block{block}_conv1/{end}": np.zeros(1, np.float32) for block in range(6) for end in ("kernel", "bias")}
    line = message(Foreign(Path("vgg16.h5"), "keras", vgg, {}))
    assert "265 missing: conv1_bn/beta, " in line
    assert " and 255 more; 12 extra: block0_conv1/bias, " in line and "block4_conv1/kernel and 2 more; pass" in line


def test_classes_that_are_not_there_or_not_a_thousand():
    assert "2 missing: fc.bias, fc.weight;" in message(foreign(), 1000)
    made = foreign(num_classes=10)
    assert "fc.bias (10,) for (1000,), fc.weight (2048, 10) for (2048, 1000)" in message(made, 1000)
    translate(made, TORCHVISION, 0)


def test_what_the_file_says_of_its_layers():
    def said(layout, **layers):
        return described(foreign(layout, layers=layers), layout)

    assert said(KERAS) == (1.001e-5, True) and said(OLD_KERAS) == (1e-3, True) and said(TORCHVISION) == (1e-5, False)
    assert said(KERAS, conv1_bn={"epsilon": 0.1}, conv3_block1_1_conv={"strides": [1, 1]}) == (0.1, False)
    assert said(OLD_KERAS, res3a_branch2a={"strides": [2, 2]}) == (1e-3, True)
    with pytest.raises(UserError, match=r"BatchNorms of epsilon \[0.1, 0.2\]"):
        said(KERAS, a={"epsilon": 0.1}, b={"epsilon": 0.2})
