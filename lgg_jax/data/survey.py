"""Descriptive statistics of a data set: patients, tumours, intensities, and a sample slice of each patient.

    result = survey(dataset.load_volumes(config.data))
    result.cases                 # DataFrame, one row per patient
"""

import dataclasses
from collections.abc import Iterable

import numpy as np
import pandas as pd

from lgg_jax.data.clinical import FIELDS, institution
from lgg_jax.data.volume import (
    CHANNELS,
    FLAIR,
    Geometry,
    Volume,
    find_geometry,
    foreground,
    missing_sequences,
    network_masks,
)
from lgg_jax.errors import UserError

GRID = 128  # side of the maps in pixels; they cover the square around the head


@dataclasses.dataclass(frozen=True)
class Survey:
    """Statistics of a data set; rows are in the order of the data set.

    Attributes:
      cases: one row per patient, with the columns that `measure` returns.
      intensities: one row per patient and sequence, with the columns that `sequence_intensities` returns.
      tumour_map, head_map: (128, 128) float64, for each position in the square around the head, the share of patients
        who have tumour (or head) there in any slice.
      samples: {patient: (FLAIR, mask)}, each (height, width), of the slice with the largest tumour area. Patients
        without tumour have none.
    """

    cases: pd.DataFrame
    intensities: pd.DataFrame
    tumour_map: np.ndarray
    head_map: np.ndarray
    samples: dict[str, tuple[np.ndarray, np.ndarray]]


def survey(volumes: Iterable[Volume]) -> Survey:
    """Compute the statistics in one pass over the volumes. Only one slice of each patient is kept in memory.

    Raises:
      UserError: a volume has no mask.
    """
    cases, intensities, samples = [], [], {}
    tumour_map, head_map = np.zeros((2, GRID, GRID))
    for volume in volumes:
        if volume.mask is None:
            raise UserError(f"patient {volume.patient} has no mask", "explore needs a mask for every patient")
        head = foreground(volume.image)
        square = find_geometry(volume.image, GRID)
        case = measure(volume, head, square)
        cases.append(case)
        intensities += sequence_intensities(volume, head, case["missing"])
        tumour_map += _projection(volume.mask, square)
        head_map += _projection(head, square)
        if volume.mask.any():
            samples[volume.patient] = sample(volume, square)
    count = max(len(cases), 1)
    return Survey(pd.DataFrame(cases), pd.DataFrame(intensities), tumour_map / count, head_map / count, samples)


def measure(volume: Volume, head: np.ndarray, square: Geometry) -> dict:
    """Measure a volume.

    Args:
      volume: a volume with a mask.
      head: (slice, height, width) bool, the mask of the head.
      square: the square around the head.

    Returns:
      A row of `Survey.cases`:
        patient, institution, and the fields of `clinical.FIELDS`, NaN if missing.
        slices, tumour_slices: number of slices, and of slices with tumour.
        height, width: size of a slice in pixels.
        tumour_pixels, head_pixels: number of pixels in the whole volume; tumour_share is their ratio.
        row, column: centroid of the tumour as a fraction of the square, from its upper left corner. NaN without tumour.
        depth: centroid of the tumour as a fraction of the number of slices, from the first slice. NaN without tumour.
        missing: names of the sequences that equal FLAIR.
    """
    mask = volume.mask
    slices, height, width = mask.shape
    depth, row, column = np.argwhere(mask).mean(axis=0) + 0.5 if mask.any() else np.full(3, np.nan)
    tumour, pixels = int(mask.sum()), int(head.sum())
    return {
        "patient": volume.patient,
        "institution": institution(volume.patient),
        **{field: np.nan if volume.clinical.get(field) is None else volume.clinical[field] for field in FIELDS},
        "slices": slices,
        "tumour_slices": int(mask.any(axis=(1, 2)).sum()),
        "height": height,
        "width": width,
        "tumour_pixels": tumour,
        "head_pixels": pixels,
        "tumour_share": tumour / pixels if pixels else np.nan,
        "row": (row - square.top) / square.side,
        "column": (column - square.left) / square.side,
        "depth": depth / slices,
        "missing": missing_sequences(volume.image),
    }


def sequence_intensities(volume: Volume, head: np.ndarray, missing: tuple[str, ...]) -> list[dict]:
    """Quartiles of the intensities in the head, as stored on disk, for each sequence that is not missing.

    Returns:
      Rows of `Survey.intensities`: patient, institution, sequence, low, median, high.
    """
    identity = {"patient": volume.patient, "institution": institution(volume.patient)}
    rows = []
    for channel, name in enumerate(CHANNELS[: volume.image.shape[-1]]):
        if name not in missing and head.any():
            low, median, high = np.percentile(volume.image[..., channel][head], [25, 50, 75])
            rows.append(identity | {"sequence": name, "low": low, "median": median, "high": high})
    return rows


def sample(volume: Volume, square: Geometry) -> tuple[np.ndarray, np.ndarray]:
    """FLAIR and mask of the slice with the largest tumour area, cropped to the square around the head."""
    index = int(volume.mask.sum(axis=(1, 2)).argmax())
    rows = slice(max(square.top, 0), square.top + square.side)
    columns = slice(max(square.left, 0), square.left + square.side)
    planes = volume.image[index, rows, columns, FLAIR], volume.mask[index, rows, columns]
    return planes[0].copy(), planes[1].copy()  # a view would keep the whole volume in memory


def _projection(mask: np.ndarray, square: Geometry) -> np.ndarray:
    """The projection of a mask along the slices, on the grid of the maps: (128, 128) bool."""
    return network_masks(mask.any(axis=0)[None], square)[0] >= 0.5
