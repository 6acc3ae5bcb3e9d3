"""ResNet50: number of parameters, stem and blocks against scipy, BatchNorm over several devices."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from model_variables import count, random_variables, shapes
from scipy import signal

from lgg_jax.models.resnet import Bottleneck, ResNet50


def images(batch=2, height=32, width=32, channels=3) -> jax.Array:
    return jnp.asarray(np.random.default_rng(0).normal(size=(batch, height, width, channels)), jnp.float32)


def convolved(x: np.ndarray, kernel: np.ndarray, stride: int = 1) -> np.ndarray:
    """Convolution with zero padding, so that the kernel is centred on every pixel, then every `stride`-th pixel."""
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
    variables = shapes(model, images(), train=False)
    assert count(variables["params"]) == expected
    assert count(variables["batch_stats"]) == 53_120
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(variables))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("stride_on_first", [True, False])
def test_feature_maps_of_a_four_channel_image(stride_on_first, dtype):
    model = ResNet50(stride_on_first, dtype=dtype)
    run = partial(model.init_with_output, train=False)
    maps, variables = jax.eval_shape(run, jax.random.key(0), images(2, 64, 96, 4))
    assert [x.shape for x in maps] == [
        (2, 64 // stride, 96 // stride, channels)
        for stride, channels in zip((2, 4, 8, 16, 32), (64, 256, 512, 1024, 2048), strict=True)
    ]
    assert all(x.dtype == dtype for x in maps)
    assert variables["params"]["conv_stem"]["kernel"].shape == (7, 7, 4, 64)


def test_logits_are_float32():
    model = ResNet50(True, num_classes=1000, dtype=jnp.bfloat16)
    logits, _ = jax.eval_shape(partial(model.init_with_output, train=False), jax.random.key(0), images())
    assert logits.shape == (2, 1000) and logits.dtype == jnp.float32


def test_stem_against_scipy():
    """Padding: three zeros on every side. SAME pads two before and three after, which shifts the map by a pixel."""
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


def test_running_statistics_cover_all_devices():
    """new = 0.9 × old + 0.1 × batch, where the batch is that of both devices."""
    x = images(4)
    variables = random_variables(ResNet50(True), x, train=False)

    @partial(jax.jit, static_argnums=0)  # JAX removes everything except the stem before compilation
    def stem(model, x):
        maps, new = model.apply(variables, x, train=True, mutable=["batch_stats"])
        return maps[0], new["batch_stats"]["norm_stem"]

    whole, stats = stem(ResNet50(True), x)
    sharded = jax.vmap(partial(stem, ResNet50(True, axis_name="batch")), axis_name="batch")
    parts, stats_of_each = sharded(x.reshape(2, 2, 32, 32, 3))
    np.testing.assert_allclose(parts.reshape(whole.shape), whole, rtol=1e-3, atol=1e-4)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a[0], b, rtol=1e-4), stats_of_each, stats)
    raw = convolved(np.asarray(x), np.asarray(variables["params"]["conv_stem"]["kernel"]), 2)
    old = variables["batch_stats"]["norm_stem"]["mean"]
    np.testing.assert_allclose(stats["mean"], 0.9 * old + 0.1 * raw.mean(axis=(0, 1, 2)), rtol=1e-3, atol=1e-4)
