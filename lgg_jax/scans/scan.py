"""What every format has in common: a volume as the network takes it, and the way back into the format.

    scan = source.read()                                    # of find_scans(path)
    mask = scan.volume.image[..., 1] > 100                  # (slice, height, width)
    scan.write_mask(mask, "predictions/TCGA_CS_4941")       # on the input's own grid, in the input's own format
"""

import abc
import dataclasses
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lgg_jax.data.volume import CHANNELS, FLAIR, Volume, lacks_t2
from lgg_jax.errors import UserError

T2 = CHANNELS[3]


@dataclasses.dataclass(frozen=True)
class Scan(abc.ABC):
    """One patient's scan, opened.

    Attributes:
      volume: axial slices as in kaggle_3m: slices rise from the neck to the crown, rows run from front to back and
        columns from the patient's right to the left; `mask` is None, `patient` the id for outputs.
      spacing_mm: distance of slices, rows and columns; None where the format does not tell (TIFF).
      sources: what each sequence was read from; a sequence that is not in it was filled with FLAIR.
    """

    volume: Volume
    spacing_mm: tuple[float, float, float] | None
    sources: dict[str, str]

    @property
    def missing(self) -> tuple[str, ...]:
        """The names in `volume.CHANNELS` that FLAIR stands in for."""
        return tuple(name for name in CHANNELS[: self.volume.image.shape[-1]] if name not in self.sources)

    @abc.abstractmethod
    def write_mask(self, mask: np.ndarray, folder) -> Path:
        """Writes (slice, height, width) bool, aligned with `volume.image`, on the input's grid. Returns where."""

    @abc.abstractmethod
    def write_probability(self, probability: np.ndarray, folder) -> Path:
        """Writes (slice, height, width) float32 in [0, 1] in the same way."""


def compact(values: np.ndarray, path: Path) -> np.ndarray:
    """The values as the smallest of uint8, int16 and float32 that holds them, so that every format gives one image.

    UserError where a value is NaN or infinite.
    """
    broken = int(np.count_nonzero(~np.isfinite(values)))
    if broken:
        raise UserError(f"{path} has {broken} values that are NaN or infinite", "export it again or set them to 0")
    low, high = float(values.min()), float(values.max())
    whole = values.dtype.kind in "iu" or bool((values == np.rint(values)).all())
    for dtype in (np.uint8, np.int16):
        if whole and np.iinfo(dtype).min <= low and high <= np.iinfo(dtype).max:
            return values.astype(dtype)
    return values.astype(np.float32)


def stack_sequences(sequences: dict[str, np.ndarray], path: Path) -> np.ndarray:
    """(slice, height, width, 3), or 4 with T2: in the order of CHANNELS; for those that are missing, FLAIR."""
    names = CHANNELS if T2 in sequences else CHANNELS[:3]
    warn_of_missing([name for name in names if name not in sequences], path)
    return np.stack([sequences.get(name, sequences[CHANNELS[FLAIR]]) for name in names], axis=-1)


def refuse_sequence(name: str, error: UserError) -> None:
    """Raises; T2, which few networks ask for, is left out with a warning instead."""
    if name != T2:
        raise error
    warnings.warn(f"{error}: T2 is left out", stacklevel=3)


def warn_without_t2(scan: Volume, names: Sequence[str]) -> None:
    """Warns where `names`, a run's `config.data.channels`, ask for a T2 that the scan does not have."""
    if lacks_t2(scan.image, names):
        warn_of_missing([T2], scan.patient)


def warn_of_missing(names: list[str], path: Path | str) -> None:
    for name in names:
        warnings.warn(f"{path} has no {name} sequence: FLAIR takes its place, as in training", stacklevel=3)


def output_path(folder, name: str) -> Path:
    """`folder/name`, the folder made."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    return folder / name
