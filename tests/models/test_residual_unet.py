"""Deep residual U-Net: number of parameters, and the residual unit against independent convolutions."""

import jax
import jax.numpy as jnp
import numpy as np
from model_variables import count, shapes

from configs import residual_unet
from lgg_jax.models import create_model
from lgg_jax.models.blocks import normalisation
from lgg_jax.models.residual_unet import ResidualUNet, ResidualUnit

IMAGE = jnp.zeros((1, 32, 32, 3))


def unit_size(before: int, after: int, activate: bool = True) -> int:
    """Parameters of two 3×3 convolutions, a 1×1 shortcut without bias, and two normalisations (one for an image)."""
    return 9 * before * after + 9 * after * after + before * after + 2 * (before * activate + after)


def test_number_of_parameters():
    variables = shapes(ResidualUNet(features=64, levels=4), IMAGE, train=False)
    encoder = unit_size(3, 64, activate=False) + unit_size(64, 128) + unit_size(128, 256) + unit_size(256, 512)
    decoder = unit_size(512 + 256, 256) + unit_size(256 + 128, 128) + unit_size(128 + 64, 64)
    assert count(variables["params"]) == encoder + decoder + 64 + 1 == 8_216_769
    flat = jax.tree_util.tree_leaves_with_path(variables["params"])
    shortcuts = sum(leaf.size for path, leaf in flat if "shortcut" in jax.tree_util.keystr(path))
    assert shortcuts == 430_272, "without the shortcuts, the network has the 7.8 million parameters of the paper"


def convolution(x: np.ndarray, kernel: np.ndarray, stride: int) -> jax.Array:
    """3×3 convolution with zero padding on every side, as in the framework of the paper; SAME pads asymmetrically."""
    padded = np.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)])
    return jax.lax.conv_general_dilated(
        padded, np.float32(kernel), (stride, stride), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def test_unit_equals_its_formula():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 8, 8, 3)).astype(np.float32)
    unit = ResidualUnit(4, 2, True, normalisation("batch", False, jnp.float32, None), jnp.float32)
    variables = jax.tree.map(lambda leaf: np.abs(rng.normal(size=leaf.shape)), unit.init(jax.random.key(0), x))

    def activated(values, name):
        params, stats = variables["params"][name], variables["batch_stats"][name]
        scaled = (values - stats["mean"]) / np.sqrt(stats["var"] + 1e-5)
        return np.maximum(scaled * params["scale"] + params["bias"], 0)

    params = variables["params"]
    inner = convolution(activated(x, "norm0"), params["conv0"]["kernel"], 2)
    outer = convolution(activated(inner, "norm1"), params["conv1"]["kernel"], 1)
    expected = outer + x[:, ::2, ::2] @ params["shortcut"]["kernel"]
    np.testing.assert_allclose(unit.apply(variables, x), expected, rtol=1e-3, atol=1e-3)


def test_the_image_itself_is_not_normalised():
    params = shapes(ResidualUNet(features=8, levels=3), IMAGE, train=False)["params"]
    assert "norm0" not in params["encoder0"] and "norm0" in params["encoder1"]
    assert not any(name.startswith("up") for name in params), "the decoder upsamples by repetition, without parameters"


def test_the_config_creates_it():
    assert isinstance(create_model(residual_unet.get_config().model), ResidualUNet)
