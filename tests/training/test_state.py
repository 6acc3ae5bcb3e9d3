"""Training state: random streams, a new state and the initial weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from model_variables import same

from configs import default
from lgg_jax.errors import UserError
from lgg_jax.models.unet import UNet
from lgg_jax.training import state as state_lib
from lgg_jax.training.optimizer import create_optimizer
from lgg_jax.weights.names import LAYOUTS
from lgg_jax.weights.pretrained import Pretrained, write_pretrained


def test_keys_depend_only_on_seed_step_and_stream():
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
    optimizer = create_optimizer(config.optimizer, 10)
    variables = state_lib.initial_variables(config, model, (SAMPLE,), variables)
    return state_lib.create_state(config.optimizer, optimizer, variables)


def addresses(tree) -> list[int]:
    return [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(tree)]


@pytest.fixture(scope="module")
def fresh() -> state_lib.TrainState:
    return create(ema_decay=0.99, name="adamw")


def test_a_new_state(fresh):
    assert fresh.step == 0 and fresh.step.dtype == jnp.int32
    assert {leaf.dtype for leaf in jax.tree.leaves((fresh.params, fresh.batch_stats))} == {jnp.dtype("float32")}
    assert same(fresh.ema, {"params": fresh.params, "batch_stats": fresh.batch_stats})
    assert fresh.variables() is fresh.ema


def test_initial_weights_depend_on_the_seed_but_not_on_compiler_options(fresh):
    plain = MODEL.init(state_lib.stream_key(0, 0, "init"), SAMPLE, train=False)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), fresh.params, plain["params"])
    other = create(seed=1).params
    assert not np.allclose(other["output"]["kernel"], fresh.params["output"]["kernel"])


def test_no_memory_is_shared_within_a_state_or_with_the_caller(fresh):
    """The training step donates the memory of the state, which would overwrite shared arrays."""
    variables = {"params": fresh.params, "batch_stats": fresh.batch_stats}
    state = create(variables=variables, ema_decay=0.99)
    assert same(state.params, fresh.params) and same(state.batch_stats, fresh.batch_stats)
    for each in (fresh, state):
        assert len(set(addresses(each))) == len(addresses(each)) > 20
    assert not set(addresses(state)) & set(addresses(variables))


def shapes(model: UNet) -> dict:
    return jax.tree.map(jnp.zeros_like, jax.eval_shape(lambda: model.init(jax.random.key(0), SAMPLE, train=False)))


def test_a_state_without_ema_and_without_statistics():
    model = UNet(features=8, levels=2, norm="group")
    state = create(variables=shapes(model), model=model)
    assert state.ema is None and state.batch_stats == {}
    assert state.variables() == {"params": state.params, "batch_stats": {}}


@pytest.mark.parametrize("norm, names, expected", [
    ("batch", ("encoder0", "encoder9"), r"names \['encoder9'\], of which .*; choose from decoder0, encoder0, encoder1"),
    ("batch", ("output",), r"names \['output'\], of which the model has no BatchNorm"),
    ("group", ("encoder0",), r"names \['encoder0'\], of which .*; leave it empty"),
])  # fmt: skip
def test_fixed_norm_of_a_module_without_batch_norm_is_refused(norm, names, expected):
    model, config = UNet(features=8, levels=2, norm=norm), default.get_config()
    config.model.fixed_norm = names
    with pytest.raises(UserError, match=f"config.model.fixed_norm {expected}"):
        state_lib.initial_variables(config, model, (SAMPLE,), shapes(model))


def test_weights_of_another_model_are_refused():
    with pytest.raises(UserError, match=r"init_from=.* holds another model \(.* there, .* here\)"):
        create(variables=shapes(UNet(features=3, levels=2)))


class Backbone(nn.Module):
    """A small replacement for a ResNet50."""

    @nn.compact
    def __call__(self, x, train: bool):
        return nn.BatchNorm(not train, name="norm_stem")(nn.Dense(3, name="conv_stem")(x))


class Model(nn.Module):
    @nn.compact
    def __call__(self, x, train: bool):
        return nn.BatchNorm(not train, name="norm")(nn.Dense(2, name="head")(Backbone(name="backbone")(x, train)))


def weights_file(path, include_top=False, width=3) -> dict:
    """Write a file with weights of `Backbone` and return them."""
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
    pretrained = weights_file(tmp_path / "w", include_top)
    pretrained["params"].pop("head", None)  # the layer for the 1000 classes is not loaded
    new, plain = initial(tmp_path / "w"), initial()
    assert same(new["params"]["backbone"], pretrained["params"])
    assert same(new["batch_stats"]["backbone"], pretrained["batch_stats"])
    assert same(new["params"]["head"], plain["params"]["head"])
    assert same(new["batch_stats"]["norm"], plain["batch_stats"]["norm"])


def test_weights_of_a_run_override_pretrained_weights(tmp_path):
    before = jax.tree.map(lambda x: x + 1, initial())
    assert same(initial(tmp_path / "not there", before), before)


def test_pretrained_weights_of_another_shape_are_refused(tmp_path):
    weights_file(tmp_path / "w", width=4)
    message = r"pretrained=.*w holds another model \(batch_stats/norm_stem/mean is \(4,\) there, \(3,\) here\); pass"
    with pytest.raises(UserError, match=message):
        initial(tmp_path / "w")
