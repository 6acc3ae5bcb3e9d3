"""The largest component, its connectivity, and the masks that have none."""

import numpy as np

from lgg_jax.postprocess import largest_component


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
