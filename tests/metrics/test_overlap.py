"""Overlap metrics: a table of edge cases, tested row by row, and a case computed by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lgg_jax.metrics.overlap import confusion, dice, iou, precision, sensitivity, slice_dice

EMPTY, SOME = np.zeros((4, 4), bool), np.eye(4, dtype=bool)
NAN = float("nan")

# ground_truth, prediction, dice, iou, sensitivity, precision, slice_dice
TABLE = [
    (EMPTY, EMPTY, NAN, NAN, NAN, NAN, 1.0),
    (EMPTY, SOME, 0.0, 0.0, NAN, 0.0, 0.0),
    (SOME, EMPTY, 0.0, 0.0, 0.0, 0.0, 0.0),
    (SOME, SOME, 1.0, 1.0, 1.0, 1.0, 1.0),
    (SOME, ~SOME, 0.0, 0.0, 0.0, 0.0, 0.0),
]


@pytest.mark.parametrize("row", TABLE, ids=["both empty", "no tumour", "empty prediction", "equal", "disjoint"])
def test_edge_cases(row):
    ground_truth, prediction, *expected = row
    tp, fp, fn, _ = confusion(prediction, ground_truth)
    ratios = [dice(tp, fp, fn), iou(tp, fp, fn), sensitivity(tp, fn), precision(tp, fp, fn)]
    np.testing.assert_array_equal([*ratios, slice_dice(prediction[None], ground_truth[None])[0]], expected)


def test_by_hand():
    ground_truth = np.array([[1, 1, 1, 0], [0, 0, 0, 0]])
    prediction = np.array([[0, 1, 1, 1], [1, 0, 0, 0]])
    tp, fp, fn, tn = confusion(prediction, ground_truth)
    assert (tp, fp, fn, tn) == (2, 2, 1, 3)
    assert dice(tp, fp, fn) == pytest.approx(4 / 7)
    assert iou(tp, fp, fn) == pytest.approx(2 / 5)
    assert sensitivity(tp, fn) == pytest.approx(2 / 3)
    assert precision(tp, fp, fn) == pytest.approx(1 / 2)


def test_dice_of_arrays_of_counts():
    np.testing.assert_array_equal(dice(np.array([0, 1, 0]), np.array([0, 0, 2]), np.array([0, 0, 0])), [NAN, 1, 0])


def test_slice_dice_of_several_slices():
    ground_truth, prediction = np.stack([EMPTY, SOME, SOME]), np.stack([EMPTY, SOME, np.ones((4, 4), bool)])
    np.testing.assert_allclose(slice_dice(prediction, ground_truth), [1, 1, 8 / 20])


def test_confusion_under_jit_equals_numpy():
    rng = np.random.default_rng(0)
    prediction, ground_truth = rng.random((2, 3, 8, 8)) > 0.6
    compiled = jax.jit(confusion, static_argnames="axis")
    counts = compiled(jnp.asarray(prediction), jnp.asarray(ground_truth), axis=(1, 2))
    np.testing.assert_array_equal(counts, confusion(prediction, ground_truth, axis=(1, 2)))


def test_shapes_are_never_broadcast():
    with pytest.raises(ValueError, match="shape"):
        confusion(SOME[None], SOME)
