"""Overlap of two binary masks.

    tp, fp, fn, tn = confusion(prediction, truth)
    dice(tp, fp, fn), iou(tp, fp, fn), sensitivity(tp, fn), precision(tp, fp, fn)

What the ratios give when a side is empty; NaN means "excluded": the caller counts such cases and names the count.

    truth   prediction   dice   iou   sensitivity   precision   slice_dice
    empty   empty        NaN    NaN   NaN           NaN         1
    empty   some         0      0     NaN           0           0
    some    empty        0      0     0             0           0

Precision of an empty prediction is 0/0; where there was a tumour to find it is scored 0, so that predicting nothing
never raises a mean precision.
"""

import numpy as np


def confusion(prediction, truth, axis=None):
    """Counts (tp, fp, fn, tn) over `axis` (all of them by default).

    Args:
      prediction, truth: numpy or jax arrays of one shape, bool or 0/1; works under `jax.jit`.

    Raises:
      ValueError: the shapes differ (they are never broadcast).
    """
    if prediction.shape != truth.shape:
        raise ValueError(f"prediction has shape {prediction.shape}, truth {truth.shape}")
    prediction, truth = prediction.astype(bool), truth.astype(bool)
    pairs = (prediction & truth, prediction & ~truth, ~prediction & truth, ~prediction & ~truth)
    return tuple(pair.sum(axis=axis) for pair in pairs)


def dice(tp, fp, fn):
    """2 tp / (2 tp + fp + fn) (Dice 1945); counts on the host, scalars or arrays; float64."""
    return _ratio(2 * np.asarray(tp), 2 * np.asarray(tp) + fp + fn)


def iou(tp, fp, fn):
    """tp / (tp + fp + fn) (Jaccard 1912)."""
    return _ratio(tp, np.asarray(tp) + fp + fn)


def sensitivity(tp, fn):
    """tp / (tp + fn), the share of the tumour that was found; says nothing where there is no tumour."""
    return _ratio(tp, np.asarray(tp) + fn)


def precision(tp, fp, fn):
    """tp / (tp + fp), the share of the prediction that is tumour; 0 where nothing was predicted of a tumour."""
    predicted = np.asarray(tp) + fp
    return _ratio(tp, np.where(predicted > 0, predicted, fn))


def slice_dice(prediction, truth):
    """Dice of each slice, 1 where both are empty.

    Args:
      prediction, truth: (slice, height, width) bool.

    Returns:
      (slice,) float64.
    """
    tp, fp, fn, _ = confusion(prediction, truth, axis=(-2, -1))
    values = dice(tp, fp, fn)
    return np.where(np.isnan(values), 1.0, values)


def _ratio(numerator, denominator):
    numerator, denominator = np.asarray(numerator, np.float64), np.asarray(denominator, np.float64)
    nothing = np.full(np.broadcast_shapes(numerator.shape, denominator.shape), np.nan)
    return np.divide(numerator, denominator, out=nothing, where=denominator > 0)[()]
