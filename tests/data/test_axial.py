import numpy as np
from scan_files import IMAGE, orient

from lgg_jax.data import axial


def test_turning_is_exact_both_ways(tmp_path):
    array, affine = orient(IMAGE[..., 0], "AIR")
    grid = axial.axial_grid(affine, tmp_path)
    np.testing.assert_array_equal(grid.turn(array), IMAGE[..., 0])
    np.testing.assert_array_equal(grid.turn_back(grid.turn(array)), array)
