"""Overlap metrics of two binary masks.

    tp, fp, fn, tn = confusion(prediction, ground_truth)
    dice(tp, fp, fn), iou(tp, fp, fn), sensitivity(tp, fn), precision(tp, fp, fn)

Values for empty masks. NaN means "excluded": the caller counts such cases and reports the count.

    ground truth   prediction   dice   iou   sensitivity   precision   slice_dice
    empty          empty        NaN    NaN   NaN           NaN         1
    empty          not empty    0      0     NaN           0           0
    not empty      empty        0      0     0             0           0

The precision of an empty prediction is 0/0. If the ground truth is not empty, it is scored 0, so that an empty
prediction never raises a mean precision.
"""

import numpy as np


def confusion(prediction, ground_truth, axis=None):
    """Count true positives, false positives, false negatives and true negatives. Works under `jax.jit`.

    Args:
      prediction, ground_truth: NumPy or JAX arrays of the same shape, bool or 0/1.
      axis: the axis or axes to count over; all by default.

    Returns:
      (tp, fp, fn, tn), integers, each with the shape that remains.

    Raises:
      ValueError: the shapes differ (they are never broadcast).
    """
    if prediction.shape != ground_truth.shape:
        raise ValueError(f"prediction has shape {prediction.shape}, ground truth has shape {ground_truth.shape}")
    found, tumour = prediction.astype(bool), ground_truth.astype(bool)
    cells = (found & tumour, found & ~tumour, ~found & tumour, ~found & ~tumour)
    return tuple(cell.sum(axis=axis) for cell in cells)


def dice(tp, fp, fn):
    """Dice coefficient 2 tp / (2 tp + fp + fn) (Dice 1945).

    Args:
      tp, fp, fn: scalars or NumPy arrays of counts, as for the other ratios below.

    Returns:
      float64 of the broadcast shape; NaN for 0/0.
    """
    return _ratio(2 * np.asarray(tp), 2 * np.asarray(tp) + fp + fn)


def iou(tp, fp, fn):
    """Intersection over union tp / (tp + fp + fn) (Jaccard 1912)."""
    return _ratio(tp, np.asarray(tp) + fp + fn)


def sensitivity(tp, fn):
    """Sensitivity tp / (tp + fn); NaN where the ground truth is empty."""
    return _ratio(tp, np.asarray(tp) + fn)


def precision(tp, fp, fn):
    """Precision tp / (tp + fp); 0 where the prediction is empty and the ground truth is not."""
    predicted = np.asarray(tp) + fp
    return _ratio(tp, np.where(predicted > 0, predicted, fn))


def slice_dice(prediction, ground_truth):
    """Dice of each slice; 1 where both masks are empty.

    Args:
      prediction, ground_truth: (slice, height, width) bool.

    Returns:
      (slice,) float64.
    """
    tp, fp, fn, _ = confusion(prediction, ground_truth, axis=(-2, -1))
    values = dice(tp, fp, fn)
    return np.where(np.isnan(values), 1.0, values)


def _ratio(numerator, denominator):
    numerator, denominator = np.asarray(numerator, np.float64), np.asarray(denominator, np.float64)
    nothing = np.full(np.broadcast_shapes(numerator.shape, denominator.shape), np.nan)
    return np.divide(numerator, denominator, out=nothing, where=denominator > 0)[()]
