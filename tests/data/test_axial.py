"""Reorientation to axial slices and back."""

import numpy as np
from scan_files import IMAGE, orient

from lgg_jax.data import axial


def test_reorientation_is_exact_in_both_directions(tmp_path):
    array, affine = orient(IMAGE[..., 0], "AIR")
    grid = axial.axial_grid(affine, tmp_path)
    np.testing.assert_array_equal(grid.turn(array), IMAGE[..., 0])
    np.testing.assert_array_equal(grid.turn_back(grid.turn(array)), array)
