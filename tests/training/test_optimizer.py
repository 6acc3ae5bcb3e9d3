"""Optimizer: schedule, updates, frozen modules, backbone rate and EMA."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from model_variables import same

from configs import default
from lgg_jax.errors import UserError
from lgg_jax.training import optimizer as optimizer_lib


def optimizer_config(**fields):
    config = default.get_config().optimizer
    config.update(fields)
    return config


def params(seed=0) -> dict:
    """Two modules, each with a kernel and with parameters that have no weight decay."""
    rng = np.random.default_rng(seed)

    def draw(*shape):
        return jnp.float32(rng.normal(size=shape))

    return {
        "encoder0": {"conv0": {"kernel": draw(2, 3)}, "norm0": {"scale": draw(3), "bias": draw(3)}},
        "output": {"kernel": draw(3, 1), "bias": draw(1)},
    }


def train(values: dict, gradients: dict, steps=3, **fields) -> dict:
    optimizer = optimizer_lib.create_optimizer(optimizer_config(**fields), num_steps=10)
    opt_state = optimizer.init(values)
    for _ in range(steps):
        updates, opt_state = optimizer.update(gradients, opt_state, values)
        values = optax.apply_updates(values, updates)
    return values


def test_warmup_and_cosine_against_the_formula():
    config = optimizer_config(learning_rate=0.02, schedule="cosine", warmup_steps=10)
    schedule = optimizer_lib.create_schedule(config, num_steps=110)
    expected = {
        0: 0, 1: 0.002, 5: 0.01, 10: 0.02, 35: 0.02 * (1 + np.cos(np.pi / 4)) / 2, 60: 0.01,
        85: 0.02 * (1 - np.cos(np.pi / 4)) / 2, 110: 0, 200: 0,
    }  # fmt: skip
    for step, value in expected.items():
        assert schedule(step) == pytest.approx(value, abs=1e-8), step


def test_constant_with_and_without_warmup():
    plain = optimizer_lib.create_schedule(optimizer_config(learning_rate=0.02), 100)
    assert [float(plain(step)) for step in (0, 1, 99)] == pytest.approx([0.02] * 3)
    warm = optimizer_lib.create_schedule(optimizer_config(learning_rate=0.02, warmup_steps=4), 100)
    assert [float(warm(step)) for step in (0, 1, 3, 4, 99)] == pytest.approx([0, 0.005, 0.015, 0.02, 0.02])


@pytest.mark.parametrize("warmup", [5, 9])
def test_a_schedule_shorter_than_its_warmup_is_finite(warmup):
    config = optimizer_config(learning_rate=0.02, schedule="cosine", warmup_steps=warmup)
    rates = [float(optimizer_lib.create_schedule(config, 5)(step)) for step in range(6)]
    assert np.isfinite(rates).all() and max(rates) <= 0.02 and min(rates) >= 0


@pytest.mark.parametrize("field, value", [("schedule", "linear"), ("name", "sgd")])
def test_unknown_names(field, value):
    with pytest.raises(UserError, match=rf"config\.optimizer\.{field}='{value}' is unknown"):
        optimizer_lib.create_optimizer(optimizer_config(**{field: value}), 10)


def test_adam_with_a_constant_gradient():
    """The bias-corrected moments of a constant gradient g are g and g², so each update is lr × g / (|g| + ε)."""
    start, gradients = params(), jax.tree.map(lambda x: 3 * jnp.sign(x) + x, params(1))
    moved = train(start, gradients, learning_rate=0.01)
    expected = jax.tree.map(lambda x, g: x - 3 * 0.01 * np.sign(g), start, gradients)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), moved, expected)


def test_adamw_decays_kernels_only():
    start = params()
    moved = train(start, jax.tree.map(jnp.zeros_like, start), 2, name="adamw", learning_rate=0.1, weight_decay=0.5)
    for module, name in ((("encoder0", "conv0"), "kernel"), (("output",), "kernel")):
        before, after = start, moved
        for key in (*module, name):
            before, after = before[key], after[key]
        np.testing.assert_allclose(after, before * (1 - 0.1 * 0.5) ** 2, rtol=1e-5)
    assert same(moved["encoder0"]["norm0"], start["encoder0"]["norm0"])
    assert same(moved["output"]["bias"], start["output"]["bias"])


def test_clipping_by_the_global_norm():
    gradients = params(1)
    optimizer = optimizer_lib.create_optimizer(optimizer_config(clip_norm=0.5), 10)
    _, opt_state = optimizer.update(gradients, optimizer.init(params()), params())
    factor = 0.5 / np.sqrt(sum(float((leaf**2).sum()) for leaf in jax.tree.leaves(gradients)))
    assert factor < 1
    first_moment = optax.tree.get(opt_state, "mu")  # after one step 0.1 × the gradient
    expected = jax.tree.map(lambda g: 0.1 * factor * g, gradients)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), first_moment, expected)


@pytest.mark.parametrize("fields", [{"name": "adam"}, {"name": "adamw", "weight_decay": 0.1}], ids=["adam", "adamw"])
@pytest.mark.parametrize("clip_norm", [0.0, 0.5])
def test_only_frozen_modules_are_unchanged(fields, clip_norm):
    start, fields = params(), {**fields, "clip_norm": clip_norm, "frozen": ("encoder0",)}
    moved = train(start, params(1), **fields)
    assert same(moved["encoder0"], start["encoder0"])
    assert all((a != b).all() for a, b in zip(*map(jax.tree.leaves, (moved["output"], start["output"])), strict=True))
    # The gradients of frozen modules do not count for the clipping.
    gradients = params(1) | {"encoder0": jax.tree.map(lambda g: 1e6 * g, params(1)["encoder0"])}
    assert same(train(start, gradients, **fields), moved)


def test_frozen_modules_have_no_gradient():
    """The gradients of all other modules are unchanged."""

    def squares(values, frozen):
        return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(optimizer_lib.without_gradient(values, frozen)))

    values = {"backbone": params(), "head": params(1)}
    free, frozen = (jax.grad(squares)(values, frozen) for frozen in ((), ("backbone/encoder0",)))
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(frozen["backbone"]["encoder0"]))
    assert all(np.any(leaf) for leaf in jax.tree.leaves(free))
    assert same(frozen["backbone"]["output"], free["backbone"]["output"]) and same(frozen["head"], free["head"])


def first_update(values: dict, **fields) -> dict:
    optimizer = optimizer_lib.create_optimizer(optimizer_config(learning_rate=0.01, **fields), 10)
    gradients = jax.tree.map(lambda x: x * x - 0.3, values)
    return optimizer.update(gradients, optimizer.init(values), values)[0]


@pytest.mark.parametrize("fields", [
    {}, {"clip_norm": 0.5}, {"name": "adamw", "weight_decay": 0.1, "schedule": "cosine"}, {"frozen": ("head",)},
])  # fmt: skip
def test_the_backbone_rate_scales_the_updates_of_the_backbone(fields):
    """It scales the whole update, including the weight decay."""
    start = {"backbone": params(), "head": params(1), "other": params(2)}
    plain, slower = first_update(start, **fields), first_update(start, backbone_rate=0.25, **fields)
    assert same(slower["backbone"], jax.tree.map(lambda x: 0.25 * x, plain["backbone"]))
    assert same(slower["other"], plain["other"]) and same(slower["head"], plain["head"])
    assert all(np.abs(leaf).min() > 0 for leaf in jax.tree.leaves(slower["backbone"]))


def test_a_frozen_backbone_ignores_its_rate():
    start = {"backbone": params(), "head": params(1)}
    updates = first_update(start, frozen=("backbone",), backbone_rate=0.5, name="adamw", weight_decay=0.1)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(updates["backbone"]))
    assert all(np.all(leaf) for leaf in jax.tree.leaves(updates["head"]))


@pytest.mark.parametrize("fields", [{"frozen": ("backbones",)}, {"backbone_rate": 0.1}])
def test_names_that_the_model_does_not_have(fields):
    with pytest.raises(UserError, match=r"names \['backbones?'\], which the model does not have; .*encoder0, output"):
        optimizer_lib.create_optimizer(optimizer_config(**fields), 10).init(params())


@pytest.mark.parametrize("step, rate", [(0, 0.1), (1, 2 / 11), (90, 91 / 100), (10**6, 0.99)])
def test_ema_against_the_formula(step, rate):
    ema, new = params(), params(1)
    updated = optimizer_lib.update_ema(ema, new, jnp.int32(step), decay=0.99)
    expected = jax.tree.map(lambda old, now: rate * old + (1 - rate) * now, ema, new)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), updated, expected)


def test_without_ema():
    assert optimizer_lib.update_ema(None, params(), jnp.int32(3), 0.99) is None
