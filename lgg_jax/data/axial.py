"""Reorientation of arrays to axial slices and back. Axes are permuted and flipped; voxel values do not change.

    grid = axial_grid(affine, path)
    image = grid.turn(array)             # (slice, row, column)
    grid.turn_back(image)                # == array

In axial orientation, slices run from inferior to superior, rows from anterior to posterior, columns from right to left.
"""

import dataclasses
import warnings
from pathlib import Path

import numpy as np
from nibabel import affines, orientations

from lgg_jax.errors import UserError

# The orientation of kaggle_3m: where data.csv gives the laterality "left", the tumour is on the right of the image.
_AXIAL = orientations.axcodes2ornt(("S", "P", "L"))


@dataclasses.dataclass(frozen=True)
class AxialGrid:
    """Mapping between the axes of an input array and axial slices.

    Attributes:
      orientation: (3, 2) float, the orientation of the input axes as `nibabel.orientations` defines it.
      spacing_mm: distance between slices, rows and columns in axial orientation, in mm.
    """

    orientation: np.ndarray
    spacing_mm: tuple[float, float, float]

    def turn(self, array: np.ndarray) -> np.ndarray:
        """Reorient an array to axial slices.

        Args:
          array: (i, j, k, ...) on the input axes, any dtype.

        Returns:
          (slice, row, column, ...), contiguous, of the same dtype.
        """
        transform = orientations.ornt_transform(self.orientation, _AXIAL)
        return np.ascontiguousarray(orientations.apply_orientation(array, transform))

    def turn_back(self, array: np.ndarray) -> np.ndarray:
        """Reorient axial slices to the input axes: the inverse of `turn`.

        Args:
          array: (slice, row, column, ...), any dtype.

        Returns:
          (i, j, k, ...) on the input axes, contiguous, of the same dtype.
        """
        transform = orientations.ornt_transform(_AXIAL, self.orientation)
        return np.ascontiguousarray(orientations.apply_orientation(array, transform))


def axial_grid(affine: np.ndarray, path: Path) -> AxialGrid:
    """Return the mapping to the axial orientation that is closest to an affine. Oblique arrays are not resampled.

    Warns if pixels of the axial slices are not square.

    Args:
      affine: (4, 4) float, from voxel indices to mm; x runs to the right, y to the front, z up (NIfTI convention).
      path: file or folder of the array, for messages.

    Raises:
      UserError: the affine is singular or not finite.
    """
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise UserError(f"header has no valid orientation ({path})", "export the file again")
    orientation = orientations.io_orientation(affine)
    axial_axes = orientations.ornt_transform(orientation, _AXIAL)[:, 0].astype(int)
    sizes = affines.voxel_sizes(affine)[np.argsort(axial_axes)]
    spacing = tuple(round(float(size), 6) for size in sizes)
    _, row, column = spacing
    if max(row, column) > 1.1 * min(row, column):
        warnings.warn(
            f"axial pixels are {row:g}×{column:g} mm, but the model was trained on square pixels ({path}); "
            "the mask may be less accurate, use an axial acquisition if there is one", stacklevel=3,
        )  # fmt: skip
    return AxialGrid(orientation, spacing)
