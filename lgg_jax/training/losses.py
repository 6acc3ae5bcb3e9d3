"""Segmentation losses on logits, every one a ratio of sums over the whole global batch.

    loss = bce(logits, mask, weight, positive_weight=1.0) + soft_dice(logits, mask, weight)

Arguments throughout: logits (batch, height, width) float32; mask the same shape, 0 or 1; weight (batch,), 0 for a
row that only fills up the batch. `all_sum` adds up over devices (`jax.lax.psum` inside a mapped step, the identity
elsewhere), so that the value, and so its gradient, does not depend on how many devices share the batch.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

AllSum = Callable[[jax.Array], jax.Array]


def _identity(x: jax.Array) -> jax.Array:
    return x


def bce(logits, mask, weight, positive_weight: float = 1.0, all_sum: AllSum = _identity) -> jax.Array:
    """Binary cross-entropy a pixel, tumour pixels counted `positive_weight` times."""
    pixel = positive_weight * mask * jax.nn.softplus(-logits) + (1 - mask) * jax.nn.softplus(logits)
    total = all_sum(jnp.sum(pixel.mean(axis=(1, 2)) * weight))
    return total / jnp.maximum(all_sum(jnp.sum(weight)), 1)


def label_bce(logits, label, weight, positive_weight: float = 1.0, all_sum: AllSum = _identity) -> jax.Array:
    """Binary cross-entropy of a yes-or-no answer: logits and label (batch,), rows of label 1 counted so many times.

    With no row of weight above 0, 0.
    """
    row = positive_weight * label * jax.nn.softplus(-logits) + (1 - label) * jax.nn.softplus(logits)
    return all_sum(jnp.sum(row * weight)) / jnp.maximum(all_sum(jnp.sum(weight)), 1)


def soft_dice(logits, mask, weight, all_sum: AllSum = _identity) -> jax.Array:
    """1 − (2·Σpt + 1) / (Σp + Σt + 1), the sums over all pixels of the batch (Milletari et al. 2016, linear form).

    Over the batch and not a slice: two thirds of the slices hold no tumour, and a slice's own Dice would be
    decided by its smoothing term there. The 1 keeps a batch without any tumour defined.
    """
    p = jax.nn.sigmoid(logits)
    overlap, size = _sum(p * mask, weight, all_sum), _sum(p + mask, weight, all_sum)
    return 1 - (2 * overlap + 1) / (size + 1)


def focal_tversky(
    logits, mask, weight, alpha: float = 0.3, beta: float = 0.7, gamma: float = 0.75, all_sum: AllSum = _identity
) -> jax.Array:
    """(1 − TI)^γ with TI = (TP + 1) / (TP + α·FP + β·FN + 1) (Abraham & Khan 2019, https://arxiv.org/abs/1810.07842).

    β > α punishes missed tumour more than false alarm. The paper writes the exponent as 1/γ with γ = 4/3.
    """
    p = jax.nn.sigmoid(logits)
    true_positive = _sum(p * mask, weight, all_sum)
    false_positive = _sum(p * (1 - mask), weight, all_sum)
    false_negative = _sum((1 - p) * mask, weight, all_sum)
    index = (true_positive + 1) / (true_positive + alpha * false_positive + beta * false_negative + 1)
    # The gradient of x^γ for γ < 1 has a pole at 0, which a batch that is right everywhere reaches.
    return jnp.maximum(1 - index, 1e-6) ** gamma


def _sum(pixels: jax.Array, weight: jax.Array, all_sum: AllSum) -> jax.Array:
    return all_sum(jnp.sum(pixels.sum(axis=(1, 2)) * weight))
