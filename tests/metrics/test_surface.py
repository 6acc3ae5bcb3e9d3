"""HD95 against a computation over all pairs of surface voxels, and against distances computed by hand."""

import numpy as np
import pytest
from scipy import ndimage

from lgg_jax.metrics.surface import hd95, surface


def blobs(seed: int, shape=(6, 24, 20)) -> np.ndarray:
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), (1, 2.5, 2.5))
    return noise > np.quantile(noise, 0.85)


def brute_surface(mask: np.ndarray) -> np.ndarray:
    """Coordinates of the voxels that have at least one of their six neighbours outside the mask or the array."""
    padded, steps = np.pad(mask, 1), np.concatenate([np.eye(3, dtype=int), -np.eye(3, dtype=int)])
    return np.array([at for at in np.argwhere(mask) if not all(padded[tuple(at + 1 + step)] for step in steps)])


def brute_hd95(first: np.ndarray, second: np.ndarray, spacing) -> float:
    first, second = brute_surface(first) * spacing, brute_surface(second) * spacing
    pairs = np.linalg.norm(first[:, None] - second[None], axis=-1)
    return max(np.percentile(pairs.min(axis=1), 95), np.percentile(pairs.min(axis=0), 95))


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (5.0, 0.9, 0.7)], ids=["pixels", "anisotropic"])
@pytest.mark.parametrize("seed", range(4))
def test_against_all_pairs(seed, spacing):
    first, second = blobs(seed), blobs(seed + 100)
    assert hd95(first, second, spacing) == pytest.approx(brute_hd95(first, second, spacing), abs=1e-9)


def test_blobs_reach_the_border():
    """Therefore the comparison above covers the border, where voxels beyond the array count as outside."""
    assert any(blobs(seed)[:, 0].any() for seed in range(4))


def line(row: int, slices=slice(2, 5)) -> np.ndarray:
    """A line of ten pixels along the rows, from `row`, in each of `slices`: (8, 40, 40) bool."""
    mask = np.zeros((8, 40, 40), bool)
    mask[slices, row:row + 10, 10:11] = True
    return mask


def test_shift_by_hand():
    """A line of ten pixels is shifted by three along itself: seven coincide, the others have distances 1, 2 and 3.

    The 95th percentile of [0 × 7, 1, 2, 3] × 3 slices is at position 27.55 of 30 sorted values: 3.
    """
    assert hd95(line(10), line(13)) == 3


@pytest.mark.parametrize("axis, expected", [(0, 2.0), (1, 3.0), (2, 3.0)])
def test_plane_shifted_along_its_normal(axis, expected):
    plane = np.zeros((9, 30, 30), bool)
    plane[tuple(4 if a == axis else slice(None) for a in range(3))] = True
    assert hd95(plane, np.roll(plane, int(expected), axis)) == expected


def test_spacing_scales_the_slice_axis():
    one, moved = line(10, slice(2, 3)), line(10, slice(4, 5))
    assert hd95(one, moved) == 2
    assert hd95(one, moved, spacing=(5.0, 1.0, 1.0)) == 10


def test_larger_of_the_two_directed_distances_in_any_order():
    near = line(10)
    both = near | line(28)
    assert hd95(near, both) == hd95(both, near) > 15


def test_same_mask_is_zero():
    assert hd95(blobs(0), blobs(0)) == 0


def test_one_empty_mask_gives_the_diagonal_the_largest_distance():
    empty = np.zeros((30, 40, 120), bool)
    corner, opposite = empty.copy(), empty.copy()
    corner[0, 0, 0] = opposite[-1, -1, -1] = True
    assert hd95(empty, corner) == hd95(corner, empty) == 130
    assert hd95(empty, corner, spacing=(2, 2, 2)) == 260
    assert hd95(corner, opposite) < 130


def test_both_empty_is_nan():
    empty = np.zeros((2, 4, 4), bool)
    assert np.isnan(hd95(empty, empty))


def test_shapes_must_be_equal():
    with pytest.raises(ValueError, match="shape"):
        hd95(np.ones((1, 4, 4), bool), np.ones((2, 4, 4), bool))


def test_surface_of_a_block():
    block = np.zeros((5, 7, 7), bool)
    block[1:4, 1:6, 1:6] = True
    assert surface(block).sum() == 3 * 5 * 5 - 1 * 3 * 3
    assert surface(np.ones((3, 3, 3), bool)).sum() == 26
