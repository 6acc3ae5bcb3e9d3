"""ResNet50: its size to the unit, its stem and blocks against scipy, BatchNorm across devices."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import signal

from lgg_jax.models.resnet import Bottleneck, ResNet50


def images(batch=2, height=32, width=32, channels=3) -> jax.Array:
    return jnp.asarray(np.random.default_rng(0).normal(size=(batch, height, width, channels)), jnp.float32)


def random_variables(module: nn.Module, *args, **kwargs) -> dict:
    """Without the module's own initialisers, which take long to compile; variances are positive."""
    shapes = jax.eval_shape(lambda key: module.init(key, *args, **kwargs), jax.random.key(0))
    rng = np.random.default_rng(1)

    def values(path, leaf):
        drawn = rng.normal(scale=0.3, size=leaf.shape)
        return jnp.float32(0.5 + np.abs(drawn) if path[-1].key == "var" else drawn)

    return jax.tree.map_with_path(values, shapes)


def convolved(x: np.ndarray, kernel: np.ndarray, stride: int = 1) -> np.ndarray:
    """Zeros around, so that the kernel's middle meets every pixel, then every `stride`-th of them."""
    pad = kernel.shape[0] // 2
    x = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    planes = [
        sum(signal.correlate2d(image[..., c], kernel[..., c, f], mode="valid") for c in range(x.shape[-1]))
        for image in x
        for f in range(kernel.shape[-1])
    ]
    return np.stack(planes).reshape(len(x), -1, *planes[0].shape).transpose(0, 2, 3, 1)[:, ::stride, ::stride]


def normalised(x: np.ndarray, params: dict, stats: dict, epsilon: float) -> np.ndarray:
    return (x - stats["mean"]) / np.sqrt(stats["var"] + epsilon) * params["scale"] + params["bias"]


@pytest.mark.parametrize("num_classes, expected", [(1000, 25_557_032), (0, 25_557_032 - 2048 * 1000 - 1000)])
@pytest.mark.parametrize("stride_on_first", [True, False])
def test_number_of_parameters(stride_on_first, num_classes, expected):
    model = ResNet50(stride_on_first, num_classes)
    variables = jax.eval_shape(partial(model.init, train=False), jax.random.key(0), images())
    assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == expected
    assert sum(leaf.size for leaf in jax.tree.leaves(variables["batch_stats"])) == 53_120
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(variables))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("stride_on_first", [True, False])
def test_maps_of_an_image_of_four_channels(stride_on_first, dtype):
    model = ResNet50(stride_on_first, dtype=dtype)
    run = partial(model.init_with_output, train=False)
    maps, variables = jax.eval_shape(run, jax.random.key(0), images(2, 64, 96, 4))
    assert [x.shape for x in maps] == [
        (2, 64 // stride, 96 // stride, channels)
        for stride, channels in zip((2, 4, 8, 16, 32), (64, 256, 512, 1024, 2048), strict=True)
    ]
    assert all(x.dtype == dtype for x in maps)
    assert variables["params"]["conv_stem"]["kernel"].shape == (7, 7, 4, 64)


def test_logits_stay_float32():
    model = ResNet50(True, num_classes=1000, dtype=jnp.bfloat16)
    logits, _ = jax.eval_shape(partial(model.init_with_output, train=False), jax.random.key(0), images())
    assert logits.shape == (2, 1000) and logits.dtype == jnp.float32


def test_stem_against_scipy():
    """Three zeros on every side: SAME would put two before and three after, and move the map by a pixel."""
    model, x = ResNet50(True, epsilon=0.1), images(1)
    variables = random_variables(model, x, train=False)
    stem = jax.jit(lambda v: model.apply(v, x, train=False)[0])(variables)
    params, stats = variables["params"], variables["batch_stats"]
    expected = convolved(np.asarray(x), np.asarray(params["conv_stem"]["kernel"]), 2)
    expected = np.maximum(normalised(expected, params["norm_stem"], stats["norm_stem"], 0.1), 0)
    np.testing.assert_allclose(stem, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("stride, project", [(2, True), (1, True), (1, False)])
@pytest.mark.parametrize("stride_on_first", [True, False])
def test_bottleneck_against_scipy(stride_on_first, stride, project):
    conv = partial(nn.Conv, use_bias=False, padding=0)
    block = Bottleneck(2, stride, project, stride_on_first, conv, partial(nn.BatchNorm, True, epsilon=0.1))
    x = images(2, 7, 10, 8)
    variables = random_variables(block, x)
    params, stats = variables["params"], variables["batch_stats"]

    def layer(x, part, stride=1):
        x = convolved(x, np.asarray(params[f"conv{part}"]["kernel"]), stride)
        return normalised(x, params[f"norm{part}"], stats[f"norm{part}"], 0.1)

    out = np.maximum(layer(np.asarray(x), "1", stride if stride_on_first else 1), 0)
    out = np.maximum(layer(out, "2", 1 if stride_on_first else stride), 0)
    shortcut = layer(np.asarray(x), "_proj", stride) if project else x
    np.testing.assert_allclose(block.apply(variables, x), np.maximum(shortcut + layer(out, "3"), 0), atol=1e-4)


def test_running_statistics_are_those_of_all_devices():
    """New = 0.9 × old + 0.1 × batch, of both devices' examples."""
    x = images(4)
    variables = random_variables(ResNet50(True), x, train=False)

    @partial(jax.jit, static_argnums=0)  # all but the stem is dropped before it is compiled
    def stem(model, x):
        maps, new = model.apply(variables, x, train=True, mutable=["batch_stats"])
        return maps[0], new["batch_stats"]["norm_stem"]

    whole, stats = stem(ResNet50(True), x)
    shared = jax.vmap(partial(stem, ResNet50(True, axis_name="batch")), axis_name="batch")
    parts, stats_of_each = shared(x.reshape(2, 2, 32, 32, 3))
    np.testing.assert_allclose(parts.reshape(whole.shape), whole, rtol=1e-3, atol=1e-4)
    jax.tree.map(lambda each, all_: np.testing.assert_allclose(each[0], all_, rtol=1e-4), stats_of_each, stats)
    raw = convolved(np.asarray(x), np.asarray(variables["params"]["conv_stem"]["kernel"]), 2)
    old = variables["batch_stats"]["norm_stem"]["mean"]
    np.testing.assert_allclose(stats["mean"], 0.9 * old + 0.1 * raw.mean(axis=(0, 1, 2)), rtol=1e-3, atol=1e-4)
