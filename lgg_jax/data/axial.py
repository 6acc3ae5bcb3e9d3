"""Arrays of any orientation turned to axial slices, and back; only axes are swapped and flipped, no value changes.

    grid = axial_grid(affine, path)
    image = grid.turn(array)             # (slice, row, column): from foot to head, front to back, right to left
    grid.turn_back(image)                # == array
"""

import dataclasses
import warnings
from pathlib import Path

import numpy as np
from nibabel import affines, orientations

from lgg_jax.errors import UserError

# What kaggle_3m has: in data.csv, tumours with laterality "left" lie on the right side of the image.
_AXIAL = orientations.axcodes2ornt(("S", "P", "L"))


@dataclasses.dataclass(frozen=True)
class AxialGrid:
    """Attributes: `orientation` (3, 2) of the input in nibabel's form; `spacing_mm` of slices, rows and columns."""

    orientation: np.ndarray
    spacing_mm: tuple[float, float, float]

    def turn(self, array: np.ndarray) -> np.ndarray:
        """(i, j, k) of the input → (slice, row, column)."""
        transform = orientations.ornt_transform(self.orientation, _AXIAL)
        return np.ascontiguousarray(orientations.apply_orientation(array, transform))

    def turn_back(self, array: np.ndarray) -> np.ndarray:
        """(slice, row, column) → (i, j, k) of the input."""
        transform = orientations.ornt_transform(_AXIAL, self.orientation)
        return np.ascontiguousarray(orientations.apply_orientation(array, transform))


def axial_grid(affine: np.ndarray, path: Path) -> AxialGrid:
    """The turn that comes closest to axial.

    Args:
      affine: (4, 4), from indices to mm with x to the right, y to the front and z up (the NIfTI convention).
      path: named in the UserError when the affine has no volume.
    """
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise UserError(f"{path} has no valid orientation in its header", "export it again")
    orientation = orientations.io_orientation(affine)
    axial_axes = orientations.ornt_transform(orientation, _AXIAL)[:, 0].astype(int)
    sizes = affines.voxel_sizes(affine)[np.argsort(axial_axes)]
    spacing = tuple(round(float(size), 6) for size in sizes)
    _, row, column = spacing
    if max(row, column) > 1.1 * min(row, column):
        warnings.warn(
            f"{path}: axial pixels are {row:g}×{column:g} mm, the model knows square ones; expect a poorer mask, "
            "and give an axial acquisition if there is one", stacklevel=3,
        )  # fmt: skip
    return AxialGrid(orientation, spacing)
