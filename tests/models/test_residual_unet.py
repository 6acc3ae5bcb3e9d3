"""The deep residual U-Net: its size, its unit against independent convolutions, and its grids."""

import jax
import jax.numpy as jnp
import numpy as np

from configs import residual_unet
from lgg_jax.models import create_model
from lgg_jax.models.blocks import normalisation
from lgg_jax.models.residual_unet import ResidualUNet, ResidualUnit


def count(tree) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def shapes(model: ResidualUNet, side: int = 32) -> dict:
    init = lambda key: model.init(key, jnp.zeros((1, side, side, 3)), train=False)  # noqa: E731
    return jax.eval_shape(init, jax.random.key(0))


def unit_size(before: int, after: int, activate: bool = True) -> int:
    """Two 3×3 convolutions and a 1×1 shortcut without bias, and two normalisations (one, of an image)."""
    return 9 * before * after + 9 * after * after + before * after + 2 * (before * activate + after)


def test_number_of_parameters():
    variables = shapes(ResidualUNet(features=64, levels=4))
    encoder = unit_size(3, 64, activate=False) + unit_size(64, 128) + unit_size(128, 256) + unit_size(256, 512)
    decoder = unit_size(512 + 256, 256) + unit_size(256 + 128, 128) + unit_size(128 + 64, 64)
    assert count(variables["params"]) == encoder + decoder + 64 + 1 == 8_216_769
    flat = jax.tree_util.tree_leaves_with_path(variables["params"])
    shortcuts = sum(leaf.size for path, leaf in flat if "shortcut" in jax.tree_util.keystr(path))
    assert shortcuts == 430_272, "without them it has the 7.8 million parameters that the paper states"


def convolution(x: np.ndarray, kernel: np.ndarray, stride: int) -> jax.Array:
    """Zeros around the image, as the paper's framework pads, and not the side-dependent padding of SAME."""
    padded = np.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)])
    return jax.lax.conv_general_dilated(
        padded, np.float32(kernel), (stride, stride), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def test_a_unit_by_its_formula():
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


def test_an_image_is_not_normalised_first():
    params = shapes(ResidualUNet(features=8, levels=3))["params"]
    assert "norm0" not in params["encoder0"] and "norm0" in params["encoder1"]
    assert not any(name.startswith("up") for name in params), "the decoder repeats pixels"


def test_the_config_names_it():
    assert isinstance(create_model(residual_unet.get_config().model), ResidualUNet)
