"""Conversion of other libraries' tensors to ResNet50: layouts, biases, and errors for tensors that do not fit."""

from pathlib import Path

import numpy as np
import pytest

from lgg_jax.errors import UserError
from lgg_jax.weights.files import ForeignWeights
from lgg_jax.weights.names import LAYOUTS, epsilon_and_stride, recognise, tensors_of, translate

KERAS, OLD_KERAS, TORCHVISION = LAYOUTS


def foreign(layout=TORCHVISION, num_classes=0, layers=None) -> ForeignWeights:
    """The content of a file of zeros that need no memory."""
    shapes = tensors_of(layout, num_classes)
    tensors = {name: np.broadcast_to(np.float32(0), shape) for name, (_, shape) in shapes.items()}
    return ForeignWeights(Path("weights"), layout.library, tensors, layers or {})


def with_biases(layout=KERAS) -> ForeignWeights:
    weights = foreign(layout)
    kernels = [name for name in weights.tensors if name.endswith("/kernel")]
    for name in kernels:
        weights.tensors[name.replace("kernel", "bias")] = np.arange(weights.tensors[name].shape[-1], dtype=np.float32)
    return weights


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_recognised_with_and_without_classes(layout):
    assert recognise(foreign(layout)) is layout
    for num_classes in (0, 1000):
        variables = translate(foreign(layout, 1000), layout, num_classes)
        assert ("head" in variables["params"]) == bool(num_classes)
    assert len(tensors_of(layout, 1000)) == 53 * 5 + 2


def test_biases_are_subtracted_from_the_running_mean():
    weights = with_biases()
    weights.tensors["conv3_block1_0_bn/moving_mean"] = np.full(512, 7, np.float32)
    stats = translate(weights, KERAS, 0)["batch_stats"]
    np.testing.assert_array_equal(stats["stage2_block0"]["norm_proj"]["mean"], 7 - np.arange(512))
    np.testing.assert_array_equal(stats["norm_stem"]["mean"], -np.arange(64))
    np.testing.assert_array_equal(stats["norm_stem"]["var"], np.zeros(64))


def message(weights: ForeignWeights, num_classes: int = 0) -> str:
    with pytest.raises(UserError) as caught:
        translate(weights, recognise(weights), num_classes)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_every_tensor_that_does_not_fit_is_listed():
    weights = foreign()
    del weights.tensors["layer1.0.conv1.weight"], weights.tensors["bn1.bias"]
    weights.tensors["conv1.weight"] = np.zeros((7, 7, 1, 64), np.float32)
    weights.tensors["layer4.3.conv1.weight"] = np.zeros(3, np.float32)
    weights.tensors["bn1.weight"] = np.full(64, np.nan, np.float32)
    assert message(weights) == (
        "weights is not a ResNet50 in the layout of torchvision: 2 missing: bn1.bias, layer1.0.conv1.weight; "
        "1 extra: layer4.3.conv1.weight; 1 with another shape: conv1.weight (7, 7, 1, 64) instead of (7, 7, 3, 64); "
        "1 not finite: bn1.weight; pass the weights of a ResNet50 (with 1000 classes for --include_top)"
    )


def test_a_single_missing_bias_is_an_error():
    weights = with_biases(OLD_KERAS)
    del weights.tensors["res2a_branch1/bias"]
    assert "1 missing: res2a_branch1/bias;" in message(weights)


def test_the_error_for_another_architecture_lists_few_names():
    vgg = {f"block{block}_conv1/{end}": np.zeros(1, np.float32) for block in range(6) for end in ("kernel", "bias")}
    line = message(ForeignWeights(Path("vgg16.h5"), "keras", vgg, {}))
    assert "265 missing: conv1_bn/beta, " in line
    assert " and 255 more; 12 extra: block0_conv1/bias, " in line and "block4_conv1/kernel and 2 more; pass" in line


def test_missing_classes_and_another_number_of_classes():
    assert "2 missing: fc.bias, fc.weight;" in message(foreign(), 1000)
    weights = foreign(num_classes=10)
    assert "fc.bias (10,) instead of (1000,), fc.weight (2048, 10) instead of (2048, 1000)" in message(weights, 1000)
    translate(weights, TORCHVISION, 0)


def test_epsilon_and_stride_from_the_file():
    def result(layout, **layers):
        return epsilon_and_stride(foreign(layout, layers=layers), layout)

    assert result(KERAS) == (1.001e-5, True)
    assert result(OLD_KERAS) == (1e-3, True)
    assert result(TORCHVISION) == (1e-5, False)
    assert result(KERAS, conv1_bn={"epsilon": 0.1}, conv3_block1_1_conv={"strides": [1, 1]}) == (0.1, False)
    assert result(OLD_KERAS, res3a_branch2a={"strides": [2, 2]}) == (1e-3, True)
    with pytest.raises(UserError, match=r"BatchNorms with epsilon \[0.1, 0.2\]"):
        result(KERAS, a={"epsilon": 0.1}, b={"epsilon": 0.2})
