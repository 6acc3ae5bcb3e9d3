"""The attention U-Net: its size, its gate against the formula, and where gates are."""

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import expit

from configs import attention_unet
from lgg_jax.models import create_model
from lgg_jax.models.attention_unet import AttentionGate, AttentionUNet
from lgg_jax.models.unet import UNet


def shapes(model, side=32) -> dict:
    init = lambda key: model.init(key, jnp.zeros((1, side, side, 3)), train=False)  # noqa: E731
    return jax.eval_shape(init, jax.random.key(0))


def count(tree) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def test_number_of_parameters():
    variables = shapes(AttentionUNet(features=32))
    # A gate on a skip of c channels, gated by 2c: 4c·c/2 + 2c·c/2 + c/2 for the sums, c/2 + 1 for the attention.
    gates = sum(4 * c * c // 2 + 2 * c * c // 2 + c // 2 + c // 2 + 1 for c in (64, 128, 256))
    assert gates == 258_499
    assert count(variables["params"]) == count(shapes(UNet(features=32))["params"]) + gates == 8_021_540
    assert {name for name in variables["params"] if "gate" in name} == {"gate1", "gate2", "gate3"}


def test_a_gate_by_its_formula():
    rng = np.random.default_rng(0)
    x, g = rng.normal(size=(2, 4, 6, 4)).astype(np.float32), rng.normal(size=(2, 2, 3, 5)).astype(np.float32)
    gate = AttentionGate(jnp.float32)
    params = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape), gate.init(jax.random.key(0), x, g)["params"])
    strided = jax.lax.conv_general_dilated(
        x, np.float32(params["input"]["kernel"].reshape(2, 2, 4, 2)), (2, 2), "VALID",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )  # fmt: skip
    hidden = np.maximum(strided + g @ params["gating"]["kernel"] + params["gating"]["bias"], 0)
    attention = expit(hidden @ params["attention"]["kernel"] + params["attention"]["bias"])
    expected = x * jax.image.resize(attention, (2, 4, 6, 1), "linear")
    np.testing.assert_allclose(gate.apply({"params": params}, x, g), expected, rtol=1e-4, atol=1e-5)


def test_gates_start_open():
    x, g = (np.random.default_rng(1).normal(size=(1, side, side, 8)).astype(np.float32) for side in (8, 4))
    gate = AttentionGate(jnp.float32)
    passed = gate.apply(gate.init(jax.random.key(0), x, g), x, g) / x
    assert 0.8 < np.median(passed) < 1 and passed.max() <= 1


def test_the_config_names_it():
    assert isinstance(create_model(attention_unet.get_config().model), AttentionUNet)
