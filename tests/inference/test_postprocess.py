"""The largest component and its connectivity; holes, what closes them and what leaves them open; masks with none."""

import numpy as np
import pytest
from scipy import ndimage

from lgg_jax.inference import postprocess
from lgg_jax.inference.postprocess import fill_holes


def largest_component(mask: np.ndarray, head: np.ndarray | None = None, probability=0.9) -> np.ndarray:
    """Within a head so large that every component may be a tumour, and all as sure as the others, unless given."""
    head = np.ones((len(mask), 99, 99), bool) if head is None else head
    return postprocess.largest_component(mask, np.broadcast_to(np.float32(probability), mask.shape), head)


def test_keeps_the_largest_and_only_it():
    mask = np.zeros((4, 10, 10), bool)
    mask[0:2, 1:4, 1:4] = True
    large = mask.copy()
    mask[3, 8, 8] = mask[0, 9, 0] = True
    result = largest_component(mask)
    np.testing.assert_array_equal(result, large)
    assert result.dtype == bool


def test_size_counts_in_three_dimensions():
    """Two pixels a slice through four slices are more than six pixels within one."""
    mask = np.zeros((4, 10, 10), bool)
    mask[:, 1, 1:3] = True
    tall = mask.copy()
    mask[1, 7, 1:7] = True
    np.testing.assert_array_equal(largest_component(mask), tall)


def test_a_shared_corner_connects():
    mask = np.zeros((3, 6, 6), bool)
    mask[0, 1, 1] = mask[1, 2, 2] = mask[2, 3, 1] = True
    np.testing.assert_array_equal(largest_component(mask), mask)


def test_an_empty_slice_separates():
    mask = np.zeros((3, 6, 6), bool)
    mask[0, :2], mask[2, 0] = True, True
    assert largest_component(mask).sum() == 12


def test_empty_stays_empty():
    assert not largest_component(np.zeros((3, 5, 5), bool)).any()


def test_full_stays_full():
    assert largest_component(np.ones((2, 3, 3), bool)).all()


def test_tie_keeps_the_first():
    mask = np.zeros((1, 5, 9), bool)
    mask[0, 0:2, 6], mask[0, 3:5, 1] = True, True
    result = largest_component(mask)
    assert result[0, 0:2, 6].all() and result.sum() == 2


def test_the_argument_is_left_alone():
    mask = np.zeros((1, 5, 5), bool)
    mask[0, 0, 0], mask[0, 4] = True, True
    before = mask.copy()
    largest_component(mask)
    np.testing.assert_array_equal(mask, before)


LARGE, SURE = np.zeros((1, 10, 12), bool), np.zeros((1, 10, 12), bool)  # of 40 and 8 pixels
LARGE[0, :8, :5] = SURE[0, :4, 8:10] = True


@pytest.mark.parametrize("large, sure, kept", [
    (0.8, 0.9, SURE), (0.9, 0.8, LARGE), (0.9, 0.9, LARGE), (1.0, 1.0, LARGE), (0.9, 0.90001, LARGE)])  # fmt: skip
def test_of_large_ones_the_surest_is_kept(large, sure, kept):
    np.testing.assert_array_equal(largest_component(LARGE | SURE, probability=LARGE * large + SURE * sure), kept)


def test_less_than_a_fifth_of_the_largest_is_small_however_sure():
    smaller = SURE.copy()
    smaller[0, 0, 8] = False
    np.testing.assert_array_equal(largest_component(LARGE | smaller, probability=LARGE * 0.5 + smaller), LARGE)


def test_sure_is_a_mean_of_log_odds():
    """Half 0.999 and half 0.5: p 0.75, log-odds 3.45; 0.8 throughout: 1.39."""
    probability = LARGE * 0.8 + SURE * 0.999
    probability[0, :2, 8:10] = 0.5
    np.testing.assert_array_equal(largest_component(LARGE | SURE, probability=probability), SURE)


CROWN = np.zeros((5, 12, 12), bool)  # a tumour of 24 pixels, and above it a slice that is taken for one as a whole
CROWN[:3, 2:6, 2:4] = CROWN[4, 3:9, 3:9] = True


@pytest.mark.parametrize("side, slices_kept", [(12, [4]), (10, [0, 1, 2]), (6, [0, 1, 2])])
def test_what_fills_a_third_of_the_head_is_no_tumour(side, slices_kept):
    """36 pixels are a quarter of a slice of the head, 0.36 of it, all of it; the 24 are at most 8 of 36 a slice."""
    head = np.zeros_like(CROWN)
    head[:, :side, :side] = True
    if side == 6:
        head[4], head[4, 3:9, 3:9] = False, True
    kept = largest_component(CROWN, head)
    assert list(np.flatnonzero(kept.any(axis=(1, 2)))) == slices_kept
    np.testing.assert_array_equal(kept[slices_kept], CROWN[slices_kept])


def test_where_all_are_too_large_the_largest_is_kept():
    head = CROWN.copy()
    assert list(np.flatnonzero(largest_component(CROWN, head).any(axis=(1, 2)))) == [4]
    np.testing.assert_array_equal(largest_component(CROWN[4:], head[4:]), CROWN[4:])


def test_a_fifth_is_of_those_that_may_be_a_tumour():
    """Five pixels are a fifth of the tumour's 24, not of the 36 that are passed over."""
    head, small = np.zeros_like(CROWN), np.zeros_like(CROWN)
    head[:, :10, :10], small[0, 9, 5:10] = True, True
    kept = largest_component(CROWN | small, head, np.where(small, 0.95, 0.9))
    np.testing.assert_array_equal(kept, small)


RING = np.zeros((1, 7, 7), bool)
RING[0, 1:6, 1:6] = True
RING[0, 2:5, 2:5] = False


def test_what_an_outline_encloses_is_filled():
    before = RING.copy()
    filled = fill_holes(RING)
    assert filled.dtype == bool and filled.sum() == 25 and filled[0, 1:6, 1:6].all()
    np.testing.assert_array_equal(RING, before)


@pytest.mark.parametrize("gap, pixels", [((1, 3), 15), ((1, 1), 24)])
def test_a_gap_opens_a_hole_and_a_missing_corner_does_not(gap, pixels):
    mask = RING.copy()
    mask[0][gap] = False
    assert fill_holes(mask).sum() == pixels


def test_the_edge_of_the_image_encloses_nothing():
    mask = RING[:, 1:-1, 2:-1]
    np.testing.assert_array_equal(fill_holes(mask), mask)


def test_a_hole_is_one_of_its_slice():
    """Open within its slice, though slices above and below close over it; and closed there, though they do not."""
    opened = RING.copy()
    opened[0, 1, 3] = False
    lid = np.ones_like(RING)
    np.testing.assert_array_equal(fill_holes(np.concatenate([lid, opened, lid]))[1], opened[0])
    assert fill_holes(np.concatenate([opened, RING, opened]))[1].sum() == 25


def test_holes_as_scipy_fills_them():
    mask = np.random.default_rng(0).random((5, 40, 30)) < 0.6
    expected = np.stack([ndimage.binary_fill_holes(plane) for plane in mask])
    assert expected.sum() > mask.sum()
    np.testing.assert_array_equal(fill_holes(mask), expected)


def test_no_holes_in_nothing_and_in_everything():
    assert not fill_holes(np.zeros((2, 5, 5), bool)).any()
    assert fill_holes(np.ones((2, 5, 5), bool)).all()
