"""What a step changes: schedule, optimizer, averaged weights, random streams and a fresh state."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from configs import default
from lgg_jax.errors import UserError
from lgg_jax.models.unet import UNet
from lgg_jax.training import state as state_lib
from lgg_jax.weights.names import LAYOUTS
from lgg_jax.weights.pretrained import Pretrained, write_pretrained


def optimizer_config(**fields):
    config = default.get_config().optimizer
    config.update(fields)
    return config


def params(seed=0) -> dict:
    """A module to freeze and one to train, each with a kernel and what is not to be decayed."""
    rng = np.random.default_rng(seed)

    def draw(*shape):
        return jnp.float32(rng.normal(size=shape))

    return {
        "encoder0": {"conv0": {"kernel": draw(2, 3)}, "norm0": {"scale": draw(3), "bias": draw(3)}},
        "output": {"kernel": draw(3, 1), "bias": draw(1)},
    }


def train(values: dict, gradients: dict, steps=3, **fields) -> dict:
    optimizer = state_lib.create_optimizer(optimizer_config(**fields), num_steps=10)
    opt_state = optimizer.init(values)
    for _ in range(steps):
        updates, opt_state = optimizer.update(gradients, opt_state, values)
        values = optax.apply_updates(values, updates)
    return values


def same(first, second) -> bool:
    return jax.tree.all(jax.tree.map(np.array_equal, first, second))


def test_warmup_and_cosine_by_hand():
    config = optimizer_config(learning_rate=0.02, schedule="cosine", warmup_steps=10)
    schedule = state_lib.create_schedule(config, num_steps=110)
    expected = {
        0: 0, 1: 0.002, 5: 0.01, 10: 0.02, 35: 0.02 * (1 + np.cos(np.pi / 4)) / 2, 60: 0.01,
        85: 0.02 * (1 - np.cos(np.pi / 4)) / 2, 110: 0, 200: 0,
    }  # fmt: skip
    for step, value in expected.items():
        assert schedule(step) == pytest.approx(value, abs=1e-8), step


def test_constant_with_and_without_warmup():
    plain = state_lib.create_schedule(optimizer_config(learning_rate=0.02), 100)
    assert [float(plain(step)) for step in (0, 1, 99)] == pytest.approx([0.02] * 3)
    warm = state_lib.create_schedule(optimizer_config(learning_rate=0.02, warmup_steps=4), 100)
    assert [float(warm(step)) for step in (0, 1, 3, 4, 99)] == pytest.approx([0, 0.005, 0.015, 0.02, 0.02])


@pytest.mark.parametrize("warmup", [5, 9])
def test_a_run_shorter_than_its_warmup(warmup):
    config = optimizer_config(learning_rate=0.02, schedule="cosine", warmup_steps=warmup)
    rates = [float(state_lib.create_schedule(config, 5)(step)) for step in range(6)]
    assert np.isfinite(rates).all() and max(rates) <= 0.02 and min(rates) >= 0


@pytest.mark.parametrize("field, value", [("schedule", "linear"), ("name", "sgd")])
def test_unknown_names(field, value):
    with pytest.raises(UserError, match=rf"config\.optimizer\.{field}='{value}' is not known"):
        state_lib.create_optimizer(optimizer_config(**{field: value}), 10)


def test_adam_by_hand():
    """Under a constant gradient g both moments, bias-corrected, are g and g²: each step moves by lr × g / (|g| + ε)."""
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


def test_clipping_is_by_the_global_norm():
    gradients = params(1)
    optimizer = state_lib.create_optimizer(optimizer_config(clip_norm=0.5), 10)
    _, opt_state = optimizer.update(gradients, optimizer.init(params()), params())
    factor = 0.5 / np.sqrt(sum(float((leaf**2).sum()) for leaf in jax.tree.leaves(gradients)))
    assert factor < 1
    first_moment = optax.tree.get(opt_state, "mu")  # after one step 0.1 × the gradient
    expected = jax.tree.map(lambda g: 0.1 * factor * g, gradients)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), first_moment, expected)


@pytest.mark.parametrize("fields", [{"name": "adam"}, {"name": "adamw", "weight_decay": 0.1}], ids=["adam", "adamw"])
@pytest.mark.parametrize("clip_norm", [0.0, 0.5])
def test_frozen_modules_stay_and_others_move(fields, clip_norm):
    start, fields = params(), {**fields, "clip_norm": clip_norm, "frozen": ("encoder0",)}
    moved = train(start, params(1), **fields)
    assert same(moved["encoder0"], start["encoder0"])
    assert all((a != b).all() for a, b in zip(*map(jax.tree.leaves, (moved["output"], start["output"])), strict=True))
    # Nor do the gradients of what is frozen count for the clipping of the others.
    gradients = params(1) | {"encoder0": jax.tree.map(lambda g: 1e6 * g, params(1)["encoder0"])}
    assert same(train(start, gradients, **fields), moved)


def test_what_is_frozen_gives_no_gradient():
    """And all else the gradient that it has without."""
    def squares(values, frozen):
        return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(state_lib.without_gradient(values, frozen)))

    values = {"backbone": params(), "head": params(1)}
    free, some = (jax.grad(squares)(values, frozen) for frozen in ((), ("backbone/encoder0",)))
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(some["backbone"]["encoder0"]))
    assert all(np.any(leaf) for leaf in jax.tree.leaves(free))
    assert same(some["backbone"]["output"], free["backbone"]["output"]) and same(some["head"], free["head"])


def first_update(values: dict, **fields) -> dict:
    optimizer = state_lib.create_optimizer(optimizer_config(learning_rate=0.01, **fields), 10)
    gradients = jax.tree.map(lambda x: x * x - 0.3, values)
    return optimizer.update(gradients, optimizer.init(values), values)[0]


@pytest.mark.parametrize("fields", [
    {}, {"clip_norm": 0.5}, {"name": "adamw", "weight_decay": 0.1, "schedule": "cosine"}, {"frozen": ("head",)},
])  # fmt: skip
def test_the_backbone_learns_at_its_own_rate(fields):
    """Of the same step the same share, weight decay and all."""
    start = {"backbone": params(), "head": params(1), "other": params(2)}
    plain, slower = first_update(start, **fields), first_update(start, backbone_rate=0.25, **fields)
    assert same(slower["backbone"], jax.tree.map(lambda x: 0.25 * x, plain["backbone"]))
    assert same(slower["other"], plain["other"]) and same(slower["head"], plain["head"])
    assert all(np.abs(leaf).min() > 0 for leaf in jax.tree.leaves(slower["backbone"]))


def test_a_frozen_backbone_has_no_rate():
    start = {"backbone": params(), "head": params(1)}
    updates = first_update(start, frozen=("backbone",), backbone_rate=0.5, name="adamw", weight_decay=0.1)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(updates["backbone"]))
    assert all(np.all(leaf) for leaf in jax.tree.leaves(updates["head"]))


@pytest.mark.parametrize("fields", [{"frozen": ("backbones",)}, {"backbone_rate": 0.1}])
def test_parts_that_the_model_does_not_have(fields):
    with pytest.raises(UserError, match=r"names \['backbones?'\], which the model does not have; .*encoder0, output"):
        state_lib.create_optimizer(optimizer_config(**fields), 10).init(params())


@pytest.mark.parametrize("step, rate", [(0, 0.1), (1, 2 / 11), (90, 91 / 100), (10**6, 0.99)])
def test_averaged_weights_by_hand(step, rate):
    ema, new = params(), params(1)
    updated = state_lib.update_ema(ema, new, jnp.int32(step), decay=0.99)
    expected = jax.tree.map(lambda old, now: rate * old + (1 - rate) * now, ema, new)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), updated, expected)


def test_without_averaged_weights():
    assert state_lib.update_ema(None, params(), jnp.int32(3), 0.99) is None


def test_keys_differ_by_seed_step_and_stream_and_are_the_same_when_derived_again():
    places = [(seed, step, stream) for seed in (0, 1) for step in range(20) for stream in state_lib.STREAMS]
    keys = [jax.random.key_data(state_lib.stream_key(*place)).tobytes() for place in places]
    assert len(set(keys)) == len(places)
    again = jax.jit(lambda step: state_lib.stream_key(1, step, "dropout"))(jnp.int32(7))
    assert jax.random.key_data(again).tobytes() == keys[places.index((1, 7, "dropout"))]


MODEL = UNet(features=2, levels=2)
SAMPLE = np.zeros((1, 8, 8, 3), np.float16)


def create(seed=0, variables=None, model=MODEL, **fields) -> state_lib.TrainState:
    config = default.get_config()
    config.seed = seed
    config.optimizer.update(fields)
    optimizer = state_lib.create_optimizer(config.optimizer, 10)
    variables = state_lib.initial_variables(config, model, (SAMPLE,), variables)
    return state_lib.create_state(config.optimizer, optimizer, variables)


def addresses(tree) -> list[int]:
    return [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(tree)]


@pytest.fixture(scope="module")
def fresh() -> state_lib.TrainState:
    return create(ema_decay=0.99, name="adamw")


def test_a_fresh_state(fresh):
    assert fresh.step == 0 and fresh.step.dtype == jnp.int32
    assert {leaf.dtype for leaf in jax.tree.leaves((fresh.params, fresh.batch_stats))} == {jnp.dtype("float32")}
    assert same(fresh.ema, {"params": fresh.params, "batch_stats": fresh.batch_stats})
    assert fresh.variables() is fresh.ema


def test_weights_follow_the_seed_as_without_compiler_options(fresh):
    plain = MODEL.init(state_lib.stream_key(0, 0, "init"), SAMPLE, train=False)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), fresh.params, plain["params"])
    other = create(seed=1).params
    assert not np.allclose(other["output"]["kernel"], fresh.params["output"]["kernel"])


def test_no_memory_is_shared_within_a_state_or_with_the_caller(fresh):
    """The training step reuses the memory of its state: what shares it would be overwritten."""
    variables = {"params": fresh.params, "batch_stats": fresh.batch_stats}
    state = create(variables=variables, ema_decay=0.99)
    assert same(state.params, fresh.params) and same(state.batch_stats, fresh.batch_stats)
    for each in (fresh, state):
        assert len(set(addresses(each))) == len(addresses(each)) > 20
    assert not set(addresses(state)) & set(addresses(variables))


def shapes(model: UNet) -> dict:
    return jax.tree.map(jnp.zeros_like, jax.eval_shape(lambda: model.init(jax.random.key(0), SAMPLE, train=False)))


def test_a_state_without_averaged_weights_and_without_statistics():
    model = UNet(features=8, levels=2, norm="group")
    state = create(variables=shapes(model), model=model)
    assert state.ema is None and state.batch_stats == {}
    assert state.variables() == {"params": state.params, "batch_stats": {}}


@pytest.mark.parametrize("norm, names, expected", [
    ("batch", ("encoder0", "encoder9"), r"names \['encoder9'\], of which .*; choose from decoder0, encoder0, encoder1"),
    ("batch", ("output",), r"names \['output'\], of which the model has no BatchNorm"),
    ("group", ("encoder0",), r"names \['encoder0'\], of which .*; leave it empty"),
])  # fmt: skip
def test_statistics_that_the_model_does_not_have(norm, names, expected):
    model, config = UNet(features=8, levels=2, norm=norm), default.get_config()
    config.model.fixed_norm = names
    with pytest.raises(UserError, match=f"config.model.fixed_norm {expected}"):
        state_lib.initial_variables(config, model, (SAMPLE,), shapes(model))


def test_weights_of_another_model():
    with pytest.raises(UserError, match=r"init_from=.* holds another model \(.* there, .* here\)"):
        create(variables=shapes(UNet(features=3, levels=2)))


class Backbone(nn.Module):
    """Stands for a ResNet50."""

    @nn.compact
    def __call__(self, x, train: bool):
        return nn.BatchNorm(not train, name="norm_stem")(nn.Dense(3, name="conv_stem")(x))


class Model(nn.Module):
    @nn.compact
    def __call__(self, x, train: bool):
        return nn.BatchNorm(not train, name="norm")(nn.Dense(2, name="head")(Backbone(name="backbone")(x, train)))


def weights_file(path, include_top=False, width=3) -> dict:
    """Writes a file of weights of `Backbone` and returns them."""
    ones = np.ones(width, np.float32)
    params = {"conv_stem": {"kernel": np.full((3, width), 2, np.float32), "bias": 3 * ones},
              "norm_stem": {"scale": 4 * ones, "bias": 5 * ones}}  # fmt: skip
    params |= {"head": {"kernel": np.ones((width, 1000), np.float32)}} if include_top else {}
    variables = {"params": params, "batch_stats": {"norm_stem": {"mean": 6 * ones, "var": 7 * ones}}}
    write_pretrained(path, Pretrained(variables, True, 1e-3, **LAYOUTS[0].expects, source="s", sha256="0" * 64))
    return variables


def initial(path="", variables=None) -> dict:
    config = default.get_config()
    config.model.pretrained = str(path)
    return state_lib.initial_variables(config, Model(), (np.zeros((1, 3), np.float32),), variables)


@pytest.mark.parametrize("include_top", [False, True])
def test_pretrained_weights_become_the_backbone(tmp_path, include_top):
    given = weights_file(tmp_path / "w", include_top)
    given["params"].pop("head", None)  # of 1000 classes: nobody asks for those
    new, plain = initial(tmp_path / "w"), initial()
    assert same(new["params"]["backbone"], given["params"])
    assert same(new["batch_stats"]["backbone"], given["batch_stats"])
    assert same(new["params"]["head"], plain["params"]["head"])
    assert same(new["batch_stats"]["norm"], plain["batch_stats"]["norm"])


def test_weights_of_a_run_win_over_pretrained_ones(tmp_path):
    before = jax.tree.map(lambda x: x + 1, initial())
    assert same(initial(tmp_path / "not there", before), before)


def test_pretrained_weights_of_another_shape(tmp_path):
    weights_file(tmp_path / "w", width=4)
    message = r"pretrained=.*w holds another model \(batch_stats/norm_stem/mean is \(4,\) there, \(3,\) here\); pass"
    with pytest.raises(UserError, match=message):
        initial(tmp_path / "w")
