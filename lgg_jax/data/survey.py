"""A data set measured in one pass: its patients, their tumours, intensities, and one slice of each.

    found = survey(dataset.load_volumes(config.data))
    found.cases                  # DataFrame, a row a patient
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

GRID = 128  # pixels along each side of the maps, over the square around the head


@dataclasses.dataclass(frozen=True)
class Survey:
    """What was measured, in the order of the data set.

    Attributes:
      cases: a row a patient: patient, institution, the fields of `clinical.FIELDS`, and what `measure` adds.
      intensities: a row for each sequence that a patient has: patient, institution, sequence, low, median, high.
      tumour_map, head_map: (128, 128), the share of patients whose tumour or head is at that place of the square
        around the head, in any slice.
      samples: FLAIR and mask, each (height, width), of the slice with most tumour of each patient who has one.
    """

    cases: pd.DataFrame
    intensities: pd.DataFrame
    tumour_map: np.ndarray
    head_map: np.ndarray
    samples: dict[str, tuple[np.ndarray, np.ndarray]]


def survey(volumes: Iterable[Volume]) -> Survey:
    """One pass over the volumes; of their pixels it keeps one slice a patient."""
    cases, intensities, samples = [], [], {}
    tumour_map, head_map = np.zeros((2, GRID, GRID))
    for volume in volumes:
        if volume.mask is None:
            raise UserError(f"patient {volume.patient} has no mask", "explore describes data that it was drawn for")
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
    """A row of `Survey.cases`.

    Returns:
      Beside the clinical values: slices, tumour_slices, height, width; tumour_pixels and head_pixels in the whole
      volume and tumour_share, one by the other; the tumour's centroid as row, column (shares of the square around
      the head, from the upper left corner) and depth (share of the stack, from its first slice), NaN without tumour;
      missing, the sequences that repeat FLAIR.
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
    """Quartiles of the head's intensities as stored, for each sequence that is not a copy of FLAIR."""
    about = {"patient": volume.patient, "institution": institution(volume.patient)}
    rows = []
    for channel, name in enumerate(CHANNELS[: volume.image.shape[-1]]):
        if name not in missing and head.any():
            low, median, high = np.percentile(volume.image[..., channel][head], [25, 50, 75])
            rows.append(about | {"sequence": name, "low": low, "median": median, "high": high})
    return rows


def sample(volume: Volume, square: Geometry) -> tuple[np.ndarray, np.ndarray]:
    """FLAIR and mask of the slice with most tumour, cut to the square around the head."""
    index = int(volume.mask.sum(axis=(1, 2)).argmax())
    rows = slice(max(square.top, 0), square.top + square.side)
    columns = slice(max(square.left, 0), square.left + square.side)
    planes = volume.image[index, rows, columns, FLAIR], volume.mask[index, rows, columns]
    return planes[0].copy(), planes[1].copy()  # views would hold the whole volume


def _projection(mask: np.ndarray, square: Geometry) -> np.ndarray:
    """(128, 128) bool: where the square around the head holds any of the mask, seen through all slices."""
    return network_masks(mask.any(axis=0)[None], square)[0] >= 0.5
