"""Scan: a volume as the network takes it, and the way to write a mask on the input's grid.

    scan = source.read()                                    # of find_scans(path)
    mask = scan.volume.image[..., 1] > 100                  # (slice, height, width)
    scan.write_mask(mask, "predictions/TCGA_CS_4941")       # in the format of the input
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
    """One patient's scan in memory.

    Attributes:
      volume: axial slices oriented as in kaggle_3m: slices run from inferior to superior, rows from anterior to
        posterior, columns from right to left. `mask` is None. `patient` is the identifier for outputs.
      spacing_mm: distance between slices, rows and columns in mm, or None if the format does not store it (TIFF).
      sources: the file, folder or channel that each sequence was read from. A sequence that is not a key was missing
        and is replaced by FLAIR.
    """

    volume: Volume
    spacing_mm: tuple[float, float, float] | None
    sources: dict[str, str]

    @property
    def missing(self) -> tuple[str, ...]:
        """Names in `volume.CHANNELS` of the sequences that are replaced by FLAIR."""
        return tuple(name for name in CHANNELS[: self.volume.image.shape[-1]] if name not in self.sources)

    @abc.abstractmethod
    def write_mask(self, mask: np.ndarray, folder) -> Path:
        """Write a mask on the input's grid, in the input's format.

        Args:
          mask: (slice, height, width) bool, aligned with `volume.image`.
          folder: output folder, created if necessary.

        Returns:
          The file written, or the folder if the format has a file per slice.
        """

    @abc.abstractmethod
    def write_probability(self, probability: np.ndarray, folder) -> Path:
        """Write probabilities, (slice, height, width) float32 in [0, 1], in the same way as `write_mask`."""


def smallest_dtype(values: np.ndarray, path: Path) -> np.ndarray:
    """Convert to the smallest of uint8, int16 and float32 that holds all values.

    The same scan then gives the same image in every format.

    Args:
      values: any shape and numeric dtype.
      path: file or folder of the values, for messages.

    Raises:
      UserError: a value is NaN or infinite.
    """
    invalid = int(np.count_nonzero(~np.isfinite(values)))
    if invalid:
        raise UserError(f"NaN or infinite values: {invalid} ({path})", "export the file again or set them to 0")
    low, high = float(values.min()), float(values.max())
    whole = values.dtype.kind in "iu" or bool((values == np.rint(values)).all())
    for dtype in (np.uint8, np.int16):
        if whole and np.iinfo(dtype).min <= low and high <= np.iinfo(dtype).max:
            return values.astype(dtype)
    return values.astype(np.float32)


def stack_sequences(sequences: dict[str, np.ndarray], path: Path) -> np.ndarray:
    """Stack sequences in the order of CHANNELS. A missing sequence is replaced by FLAIR, with a warning.

    Args:
      sequences: (slice, height, width) by name in CHANNELS. FLAIR is required.
      path: file or folder of FLAIR, for messages.

    Returns:
      (slice, height, width, 3), or 4 channels if T2 is given.
    """
    names = CHANNELS if T2 in sequences else CHANNELS[:3]
    warn_of_missing([name for name in names if name not in sequences], path)
    return np.stack([sequences.get(name, sequences[CHANNELS[FLAIR]]) for name in names], axis=-1)


def skip_t2_or_raise(name: str, error: UserError) -> None:
    """Raise `error`. For T2, which most networks do not use, warn instead: the caller skips the sequence."""
    if name != T2:
        raise error
    warnings.warn(f"T2 is skipped: {error}", stacklevel=3)


def warn_without_t2(scan: Volume, names: Sequence[str]) -> None:
    """Warn if a run's `config.data.channels`, given as `names`, include T2 and the scan has no T2."""
    if lacks_t2(scan.image, names):
        warn_of_missing([T2], scan.patient)


def warn_of_missing(names: list[str], path: Path | str) -> None:
    """Warn once for each missing sequence; `path` is the scan's file, folder or patient."""
    for name in names:
        warnings.warn(f"no {name} sequence ({path}); FLAIR replaces it, as in training", stacklevel=3)


def over_limit(path: Path, max_bytes: float, size: float | None = None) -> UserError:
    """Return the error for a scan above the limit; `size` is the number of bytes it needs in memory, if known."""
    needed = "" if size is None else f": {size / 1e9:.3g} GB in memory"
    return UserError(f"scan is larger than {max_bytes / 1e9:g} GB ({path}{needed})", "pass a larger --max_gigabytes")


def output_path(folder, name: str) -> Path:
    """Return `folder/name`; the folder is created if necessary."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    return folder / name
