"""Attention U-Net: number of parameters, the gate against its formula, and the position of the gates."""

import jax
import jax.numpy as jnp
import numpy as np
from model_variables import count, shapes
from scipy.special import expit

from configs import attention_unet
from lgg_jax.models import create_model
from lgg_jax.models.attention_unet import AttentionGate, AttentionUNet
from lgg_jax.models.unet import UNet

IMAGE = jnp.zeros((1, 32, 32, 3))


def test_number_of_parameters():
    variables = shapes(AttentionUNet(features=32), IMAGE, train=False)
    # Skip connection of c channels, gating signal of 2c: 4c·c/2 + 2c·c/2 + c/2 for the sum, c/2 + 1 for the attention.
    gates = sum(4 * c * c // 2 + 2 * c * c // 2 + c // 2 + c // 2 + 1 for c in (64, 128, 256))
    assert gates == 258_499
    unet = shapes(UNet(features=32), IMAGE, train=False)
    assert count(variables["params"]) == count(unet["params"]) + gates == 8_021_540
    assert {name for name in variables["params"] if "gate" in name} == {"gate1", "gate2", "gate3"}


def test_gate_equals_its_formula():
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


def test_gates_initially_pass_nearly_all_features():
    x, g = (np.random.default_rng(1).normal(size=(1, side, side, 8)).astype(np.float32) for side in (8, 4))
    gate = AttentionGate(jnp.float32)
    passed = gate.apply(gate.init(jax.random.key(0), x, g), x, g) / x
    assert 0.8 < np.median(passed) < 1 and passed.max() <= 1


def test_the_config_creates_it():
    assert isinstance(create_model(attention_unet.get_config().model), AttentionUNet)
