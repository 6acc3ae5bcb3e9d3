"""Losses of segmentation and classification on logits.

    loss = bce(logits, mask, weight, positive_weight=1.0) + soft_dice(logits, mask, weight)

Arguments of the segmentation losses: logits (batch, height, width) float32; mask of the same shape, 0 or 1; weight
(batch,), 0 for a row that only pads the batch. Each loss is a function of sums over the global batch. `all_sum` sums a
value over all devices (`jax.lax.psum` in a mapped step, otherwise the identity). The loss and its gradient therefore do
not depend on the number of devices.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

AllSum = Callable[[jax.Array], jax.Array]


def _identity(x: jax.Array) -> jax.Array:
    return x


def bce(logits, mask, weight, positive_weight: float = 1.0, all_sum: AllSum = _identity) -> jax.Array:
    """Mean binary cross-entropy of the pixels; tumour pixels have the weight `positive_weight`."""
    pixel = positive_weight * mask * jax.nn.softplus(-logits) + (1 - mask) * jax.nn.softplus(logits)
    total = all_sum(jnp.sum(pixel.mean(axis=(1, 2)) * weight))
    return total / jnp.maximum(all_sum(jnp.sum(weight)), 1)


def label_bce(logits, label, weight, positive_weight: float = 1.0, all_sum: AllSum = _identity) -> jax.Array:
    """Mean binary cross-entropy of labels; 0 if all weights are 0.

    Args:
      logits: (batch,) float32.
      label: (batch,), 0 or 1.
      weight: (batch,), 0 for a padded row or an unknown label.
      positive_weight: weight of rows with the label 1.
      all_sum: sums a value over all devices.
    """
    row = positive_weight * label * jax.nn.softplus(-logits) + (1 - label) * jax.nn.softplus(logits)
    return all_sum(jnp.sum(row * weight)) / jnp.maximum(all_sum(jnp.sum(weight)), 1)


def soft_dice(logits, mask, weight, all_sum: AllSum = _identity) -> jax.Array:
    """1 − (2·Σpt + 1) / (Σp + Σt + 1), with sums over all pixels of the batch (Milletari et al. 2016, linear form).

    The sums are not over each slice, because two thirds of the slices have no tumour: the Dice of such a slice would
    depend mainly on the smoothing term. The smoothing term 1 defines the loss of a batch without tumour.
    """
    p = jax.nn.sigmoid(logits)
    overlap, size = _sum(p * mask, weight, all_sum), _sum(p + mask, weight, all_sum)
    return 1 - (2 * overlap + 1) / (size + 1)


def focal_tversky(
    logits, mask, weight, alpha: float = 0.3, beta: float = 0.7, gamma: float = 0.75, all_sum: AllSum = _identity
) -> jax.Array:
    """(1 − TI)^γ with TI = (TP + 1) / (TP + α·FP + β·FN + 1) (Abraham & Khan 2019, https://arxiv.org/abs/1810.07842).

    With β > α, false negatives cost more than false positives. The paper writes the exponent as 1/γ with γ = 4/3.
    """
    p = jax.nn.sigmoid(logits)
    true_positive = _sum(p * mask, weight, all_sum)
    false_positive = _sum(p * (1 - mask), weight, all_sum)
    false_negative = _sum((1 - p) * mask, weight, all_sum)
    index = (true_positive + 1) / (true_positive + alpha * false_positive + beta * false_negative + 1)
    # For γ < 1, the gradient of x^γ has a pole at 0, which is reached if all pixels of a batch are correct.
    return jnp.maximum(1 - index, 1e-6) ** gamma


def _sum(pixels: jax.Array, weight: jax.Array, all_sum: AllSum) -> jax.Array:
    return all_sum(jnp.sum(pixels.sum(axis=(1, 2)) * weight))
