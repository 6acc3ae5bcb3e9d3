"""U-Net: number of parameters, its layers against independent implementations, and its behaviour in training."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from model_variables import count, random_variables, shapes
from scipy import signal

from configs import default
from lgg_jax import parallel, train
from lgg_jax.errors import UserError
from lgg_jax.models import create_model
from lgg_jax.models.unet import ChannelDropout, ConvBlock, UNet, UpConv, max_pool, normalisation
from lgg_jax.training import state
from lgg_jax.training.optimizer import create_optimizer


def images(batch=2, height=16, width=16) -> jax.Array:
    return jnp.asarray(np.random.default_rng(0).normal(size=(batch, height, width, 3)), jnp.float32)


def small(**fields) -> UNet:
    return UNet(**{"features": 4, "levels": 2, **fields})


def model_config(**fields):
    config = default.get_config().model
    config.update(fields)
    return config


def test_number_of_parameters():
    variables = shapes(create_model(model_config()), jnp.zeros((1, 256, 256, 3)), train=False)
    assert count(variables["params"]) == 7_763_041
    # Two normalisations per block of 32 … 512 … 32 channels, each with a mean and a variance.
    assert count(variables["batch_stats"]) == 2 * 2 * (2 * (32 + 64 + 128 + 256) + 512)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(variables))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("height, width", [(64, 64), (64, 96)])
def test_shape_and_dtype_of_the_output(dtype, height, width):
    model = create_model(model_config(dtype=dtype))

    def run(key):
        x = jnp.zeros((2, height, width, 3))
        return model.apply(model.init(key, x, train=False), x, train=False)

    logits = jax.eval_shape(run, jax.random.key(0))
    assert logits.shape == (2, height, width) and logits.dtype == jnp.float32


def test_bfloat16_output_is_close_to_float32():
    x = images()
    variables = random_variables(small(), x, train=False)
    exact = small().apply(variables, x, train=False)
    rough = small(dtype=jnp.bfloat16).apply(variables, x, train=False)
    assert 0 < np.abs(rough - exact).max() < 0.1 * np.abs(exact).max()


def test_a_non_square_image_and_a_change_at_its_border():
    x = images(1, 16, 24)
    variables = random_variables(small(), x, train=False)
    before = small().apply(variables, x, train=False)
    after = small().apply(variables, x.at[0, -1, -1].add(10.0), train=False)
    moved = np.abs(after - before)[0]
    assert np.isfinite(after).all()
    assert moved[-8:, -8:].max() > 0 and moved[:8, :8].max() == 0


def test_group_norm_does_not_depend_on_other_examples():
    x = images(3)
    model = small(norm="group", features=8)
    variables = random_variables(model, x, train=False)
    assert set(variables) == {"params"}
    alone = model.apply(variables, x[:1], train=True)
    np.testing.assert_allclose(model.apply(variables, x, train=True)[:1], alone, atol=1e-5)
    np.testing.assert_allclose(model.apply(variables, x, train=False)[:1], alone, atol=1e-5)


@pytest.mark.parametrize(
    "fields, height, message",
    [
        ({"name": "vnet"}, 16, "config.model.name='vnet' is unknown"),
        ({"norm": "layer"}, 16, "config.model.norm='layer' is unknown"),
        ({"dtype": "float7"}, 16, "config.model.dtype='float7' is unknown"),
        ({"norm": "group", "features": 12}, 16, "config.model.features=12 cannot be split into 8 groups"),
        ({}, 24, "slices of 24×32 pixels cannot be halved 4 times"),
    ],
)
def test_errors_that_a_user_can_fix(fields, height, message):
    with pytest.raises(UserError, match=message):
        create_model(model_config(**fields)).init(jax.random.key(0), jnp.zeros((1, height, 32, 3)), train=False)


def test_transposed_convolution_against_scipy():
    """By definition: zeros are inserted between the pixels, and a convolution follows."""
    rng = np.random.default_rng(1)
    x, kernel, bias = rng.normal(size=(2, 5, 7, 3)), rng.normal(size=(2, 2, 3, 4)), rng.normal(size=4)
    spread = np.zeros((2, 10, 14, 3))
    spread[:, ::2, ::2] = x
    expected = np.zeros((2, 10, 14, 4)) + bias
    for b, c, f in np.ndindex(2, 3, 4):
        expected[b, ..., f] += signal.convolve2d(spread[b, ..., c], kernel[..., c, f])[:10, :14]
    variables = {"params": {"kernel": jnp.float32(kernel), "bias": jnp.float32(bias)}}
    np.testing.assert_allclose(UpConv(4, jnp.float32).apply(variables, jnp.float32(x)), expected, atol=1e-5)


def test_max_pool_against_linen():
    x = images(2, 8, 12)
    np.testing.assert_array_equal(max_pool(x), nn.max_pool(x, (2, 2), (2, 2)))
    weight = jnp.asarray(np.random.default_rng(2).normal(size=(2, 4, 6, 3)), jnp.float32)
    ours, expected = (
        jax.grad(lambda x, pool=pool: (weight * pool(x)).sum())(x)
        for pool in (max_pool, lambda x: nn.max_pool(x, (2, 2), (2, 2)))
    )
    np.testing.assert_array_equal(ours, expected)


def test_dropout_drops_whole_channels_of_a_slice():
    x = jnp.ones((8, 4, 6, 32))
    dropped = np.asarray(ChannelDropout(0.25, deterministic=False).apply({}, x, rngs={"dropout": jax.random.key(0)}))
    channels = dropped[:, 0, 0]
    np.testing.assert_array_equal(dropped, np.broadcast_to(channels[:, None, None], dropped.shape))
    assert set(np.unique(channels)) == {0, np.float32(4 / 3)}
    assert 0.18 < (channels == 0).mean() < 0.32 and len({row.tobytes() for row in channels}) == 8


def test_dropout_only_during_training():
    x = images()
    model = small(dropout=0.5)
    variables = random_variables(model, x, train=False)

    def train(key):
        return model.apply(variables, x, train=True, mutable=["batch_stats"], rngs={"dropout": jax.random.key(key)})[0]

    evaluated = model.apply(variables, x, train=False)
    np.testing.assert_array_equal(evaluated, small().apply(variables, x, train=False))
    np.testing.assert_array_equal(train(0), train(0))
    assert np.abs(train(0) - train(1)).max() > 1e-3


def block_output(train: bool, x: jax.Array, old: dict) -> tuple[np.ndarray, np.ndarray, dict]:
    """The first convolution's output, the same normalised without scale and bias, and the new running statistics."""
    block = ConvBlock(5, normalisation("batch", train, jnp.float32, None), jnp.float32)
    variables = random_variables(block, x)
    variables["batch_stats"]["norm0"] = old
    _, kept = block.apply(variables, x, capture_intermediates=True, mutable=["batch_stats", "intermediates"])
    outputs = {name: np.asarray(kept["intermediates"][name]["__call__"][0]) for name in ("conv0", "norm0")}
    norm = variables["params"]["norm0"]
    return outputs["conv0"], (outputs["norm0"] - norm["bias"]) / norm["scale"], kept["batch_stats"]["norm0"]


def test_running_statistics_against_numpy():
    """new = 0.9 × old + 0.1 × batch, with the biased variance and ε = 1e-5.

    The momentum of Flax is the weight of the old value; that of PyTorch is the weight of the new one.
    """
    old = {"mean": jnp.arange(5.0), "var": 1 + jnp.arange(5.0)}
    y, normalised, new = block_output(True, images(3), old)
    mean, var = y.mean(axis=(0, 1, 2)), y.var(axis=(0, 1, 2))
    np.testing.assert_allclose(new["mean"], 0.9 * old["mean"] + 0.1 * mean, rtol=1e-5)
    np.testing.assert_allclose(new["var"], 0.9 * old["var"] + 0.1 * var, rtol=1e-5)
    np.testing.assert_allclose(normalised, (y - mean) / np.sqrt(var + 1e-5), atol=1e-3)


def test_evaluation_uses_the_running_statistics_unchanged():
    old = {"mean": jnp.arange(5.0), "var": 1 + jnp.arange(5.0)}
    y, normalised, new = block_output(False, images(3), old)
    np.testing.assert_allclose(normalised, (y - old["mean"]) / np.sqrt(old["var"] + 1e-5), atol=1e-3)
    assert jax.tree.all(jax.tree.map(np.array_equal, new, old))


def test_batch_norm_averages_over_the_devices():
    x = images(4)
    x *= jnp.array([1, 2, 3, 4.0])[:, None, None, None]  # so that the statistics of the two devices differ
    variables = random_variables(small(), x, train=False)
    whole, stats = small().apply(variables, x, train=True, mutable=["batch_stats"])

    def on_device(x):
        return small(axis_name="batch").apply(variables, x, train=True, mutable=["batch_stats"])

    halves, sharded = jax.vmap(on_device, axis_name="batch")(x.reshape(2, 2, *x.shape[1:]))
    np.testing.assert_allclose(halves.reshape(whole.shape), whole, atol=1e-3)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, np.stack([b, b]), rtol=1e-3, atol=1e-5), sharded, stats)


def test_a_frozen_block_is_bitwise_unchanged():
    """Parameters and statistics; all other modules change, also in a step with gradient accumulation."""
    config = default.get_config()
    config.model.update({"features": 2, "levels": 2})
    config.optimizer.update({"frozen": ("encoder0",), "accumulation": 2})
    model = create_model(config.model, parallel.AXIS, config.optimizer.frozen)
    x = np.asarray(images(4, 8, 8))
    batch = {"image": x, "mask": np.float32(x[..., 1] > 0.5), "weight": np.ones(4, np.float32)}
    optimizer = create_optimizer(config.optimizer, 5)
    variables = state.initial_variables(config, model, (x[:1],))
    after = state.create_state(config.optimizer, optimizer, variables)
    step = parallel.map_step(train.make_train_step(config, model, optimizer))
    for _ in range(2):
        after, _ = step(after, parallel.shard(batch))
    for name, part in (("params", after.params), ("batch_stats", after.batch_stats)):
        for module, leaves in part.items():
            pairs = zip(*map(jax.tree.leaves, (leaves, variables[name][module])), strict=True)
            moved = [not np.array_equal(a, b) for a, b in pairs]
            assert not any(moved) if module == "encoder0" else all(moved), (name, module)
