"""Post-processing: the largest connected component, and hole filling."""

import numpy as np
import pytest
from scipy import ndimage

from lgg_jax.inference import postprocess
from lgg_jax.inference.postprocess import fill_holes


def largest_component(mask: np.ndarray, head: np.ndarray | None = None, probability=0.9) -> np.ndarray:
    """With a head so large that no component is excluded, and with equal probabilities, unless passed as arguments."""
    head = np.ones((len(mask), 99, 99), bool) if head is None else head
    return postprocess.largest_component(mask, np.broadcast_to(np.float32(probability), mask.shape), head)


def test_keeps_only_the_largest_component():
    mask = np.zeros((4, 10, 10), bool)
    mask[0:2, 1:4, 1:4] = True
    large = mask.copy()
    mask[3, 8, 8] = mask[0, 9, 0] = True
    result = largest_component(mask)
    np.testing.assert_array_equal(result, large)
    assert result.dtype == bool


def test_size_counts_in_three_dimensions():
    """Two pixels in each of four slices are more than six pixels in one slice."""
    mask = np.zeros((4, 10, 10), bool)
    mask[:, 1, 1:3] = True
    tall = mask.copy()
    mask[1, 7, 1:7] = True
    np.testing.assert_array_equal(largest_component(mask), tall)


def test_pixels_that_share_a_corner_are_connected():
    mask = np.zeros((3, 6, 6), bool)
    mask[0, 1, 1] = mask[1, 2, 2] = mask[2, 3, 1] = True
    np.testing.assert_array_equal(largest_component(mask), mask)


def test_an_empty_slice_separates_components():
    mask = np.zeros((3, 6, 6), bool)
    mask[0, :2], mask[2, 0] = True, True
    assert largest_component(mask).sum() == 12


def test_empty_stays_empty():
    assert not largest_component(np.zeros((3, 5, 5), bool)).any()


def test_full_stays_full():
    assert largest_component(np.ones((2, 3, 3), bool)).all()


def test_of_equal_components_the_first_is_kept():
    mask = np.zeros((1, 5, 9), bool)
    mask[0, 0:2, 6], mask[0, 3:5, 1] = True, True
    result = largest_component(mask)
    assert result[0, 0:2, 6].all() and result.sum() == 2


def test_the_argument_is_unchanged():
    mask = np.zeros((1, 5, 5), bool)
    mask[0, 0, 0], mask[0, 4] = True, True
    before = mask.copy()
    largest_component(mask)
    np.testing.assert_array_equal(mask, before)


LARGE, SURE = np.zeros((1, 10, 12), bool), np.zeros((1, 10, 12), bool)  # of 40 and 8 pixels
LARGE[0, :8, :5] = SURE[0, :4, 8:10] = True


@pytest.mark.parametrize("large, sure, kept", [
    (0.8, 0.9, SURE), (0.9, 0.8, LARGE), (0.9, 0.9, LARGE), (1.0, 1.0, LARGE), (0.9, 0.90001, LARGE)])  # fmt: skip
def test_of_large_components_the_most_probable_is_kept(large, sure, kept):
    np.testing.assert_array_equal(largest_component(LARGE | SURE, probability=LARGE * large + SURE * sure), kept)


def test_a_component_below_a_fifth_of_the_largest_is_never_kept():
    smaller = SURE.copy()
    smaller[0, 0, 8] = False
    np.testing.assert_array_equal(largest_component(LARGE | smaller, probability=LARGE * 0.5 + smaller), LARGE)


def test_components_are_compared_by_mean_log_odds():
    """Half 0.999 and half 0.5: mean probability 0.75, mean log-odds 3.45. 0.8 everywhere: mean log-odds 1.39."""
    probability = LARGE * 0.8 + SURE * 0.999
    probability[0, :2, 8:10] = 0.5
    np.testing.assert_array_equal(largest_component(LARGE | SURE, probability=probability), SURE)


CROWN = np.zeros((5, 12, 12), bool)  # a tumour of 24 pixels, and a slice above it that is segmented as a whole
CROWN[:3, 2:6, 2:4] = CROWN[4, 3:9, 3:9] = True


@pytest.mark.parametrize("side, slices_kept", [(12, [4]), (10, [0, 1, 2]), (6, [0, 1, 2])])
def test_a_component_that_covers_a_third_of_the_head_is_excluded(side, slices_kept):
    """The 36 pixels cover 0.25, 0.36 or all of the head in their slice. The tumour covers at most 8 of 36 pixels."""
    head = np.zeros_like(CROWN)
    head[:, :side, :side] = True
    if side == 6:
        head[4], head[4, 3:9, 3:9] = False, True
    kept = largest_component(CROWN, head)
    assert list(np.flatnonzero(kept.any(axis=(1, 2)))) == slices_kept
    np.testing.assert_array_equal(kept[slices_kept], CROWN[slices_kept])


def test_if_all_components_are_too_large_the_largest_is_kept():
    head = CROWN.copy()
    assert list(np.flatnonzero(largest_component(CROWN, head).any(axis=(1, 2)))) == [4]
    np.testing.assert_array_equal(largest_component(CROWN[4:], head[4:]), CROWN[4:])


def test_the_size_limit_ignores_excluded_components():
    """Five pixels are a fifth of the 24 of the tumour, but not of the 36 of the excluded component."""
    head, small = np.zeros_like(CROWN), np.zeros_like(CROWN)
    head[:, :10, :10], small[0, 9, 5:10] = True, True
    kept = largest_component(CROWN | small, head, np.where(small, 0.95, 0.9))
    np.testing.assert_array_equal(kept, small)


RING = np.zeros((1, 7, 7), bool)
RING[0, 1:6, 1:6] = True
RING[0, 2:5, 2:5] = False


def test_an_enclosed_hole_is_filled():
    before = RING.copy()
    filled = fill_holes(RING)
    assert filled.dtype == bool and filled.sum() == 25 and filled[0, 1:6, 1:6].all()
    np.testing.assert_array_equal(RING, before)


@pytest.mark.parametrize("gap, pixels", [((1, 3), 15), ((1, 1), 24)])
def test_a_gap_opens_a_hole_but_a_missing_corner_does_not(gap, pixels):
    mask = RING.copy()
    mask[0][gap] = False
    assert fill_holes(mask).sum() == pixels


def test_the_edge_of_the_image_does_not_close_a_hole():
    mask = RING[:, 1:-1, 2:-1]
    np.testing.assert_array_equal(fill_holes(mask), mask)


def test_holes_are_filled_in_each_slice_alone():
    """A hole that is open in its slice stays, even between full slices; a closed one is filled between open ones."""
    opened = RING.copy()
    opened[0, 1, 3] = False
    lid = np.ones_like(RING)
    np.testing.assert_array_equal(fill_holes(np.concatenate([lid, opened, lid]))[1], opened[0])
    assert fill_holes(np.concatenate([opened, RING, opened]))[1].sum() == 25


def test_the_same_holes_as_scipy():
    mask = np.random.default_rng(0).random((5, 40, 30)) < 0.6
    expected = np.stack([ndimage.binary_fill_holes(plane) for plane in mask])
    assert expected.sum() > mask.sum()
    np.testing.assert_array_equal(fill_holes(mask), expected)


def test_empty_and_full_masks_have_no_holes():
    assert not fill_holes(np.zeros((2, 5, 5), bool)).any()
    assert fill_holes(np.ones((2, 5, 5), bool)).all()
