"""DICOM scans: one folder per series, one file per slice. A mask is written as DICOM SEG that references FLAIR.

    for patient, folders in group(folders):
        scan = read(patient, folders, max_bytes=4e9)
        scan.write_mask(mask, "out")     # out/series-1a2b3c4d_mask.dcm

The folder's name or the series description identifies the sequence. If neither does, a single series is taken as FLAIR.
T2 is read only from a folder named t2, because most studies have several T2 series on different grids. The identifier
for outputs is a hash of the series UID, because a PatientID identifies the person to the hospital.
"""

import collections
import dataclasses
import hashlib
import re
from pathlib import Path

import numpy as np
import pydicom

from lgg_jax.data.axial import AxialGrid, axial_grid
from lgg_jax.data.volume import CHANNELS, Volume
from lgg_jax.errors import UserError
from lgg_jax.scans import dicom_seg
from lgg_jax.scans.scan import Scan, output_path, skip_t2_or_raise, smallest_dtype, stack_sequences
from lgg_jax.scans.series import read_header, read_series, series_files

_T1, _FLAIR, _POST, _T2 = CHANNELS
_SEQUENCE_FOLDERS = {"flair", "t1", "t1n", "t1ce", "t1c", "t1gd", "t2"}
_T1_WORD = re.compile(r"t1(?!\d).*|mprage|spgr|bravo")
_CONTRAST_WORD = re.compile(r"(t1w?)?\+?(c|ce|gd|c\+|post.*|gad.*|contrast|enhanced)")
_OTHER_WORD = re.compile(r"t2(?!\d).*|pd|dwi|adc|swi|dti|ep2d|loc|locali[sz]er|scout|survey")


@dataclasses.dataclass(frozen=True)
class DicomScan(Scan):
    """Scan that writes DICOM SEG.

    Attributes:
      grid: mapping between the (slice, row, column) axes of the series and axial slices.
      headers: headers of the FLAIR series, in slice order.
    """

    grid: AxialGrid
    headers: tuple[pydicom.Dataset, ...]

    def write_mask(self, mask: np.ndarray, folder) -> Path:
        return self._write(mask.astype(np.uint8), folder, "mask")

    def write_probability(self, probability: np.ndarray, folder) -> Path:
        """Write a fractional SEG; values are rounded to multiples of 1/255."""
        return self._write(probability.astype(np.float32), folder, "probability")

    def _write(self, values: np.ndarray, folder, what: str) -> Path:
        path = output_path(folder, f"{self.volume.patient}_{what}.dcm")
        dicom_seg.encode(self.grid.turn_back(values), self.headers, self.volume.patient).save_as(path)
        return path


def group(folders: list[Path]) -> list[tuple[str, list[Path]]]:
    """Group series folders by study.

    Args:
      folders: series folders. If each is named after a sequence, all belong to one patient.

    Returns:
      (identifier for outputs, folders) per study. A folder whose header cannot be read is a group of its own, named
      after the folder; `read` then raises the error.
    """
    one_patient = all(folder.name.lower() in _SEQUENCE_FOLDERS for folder in folders)
    studies, unreadable = collections.defaultdict(list), []
    for folder in folders:
        try:
            header = read_header(series_files(folder)[0])
        except UserError:
            unreadable.append((folder.name, [folder]))
        else:
            studies["" if one_patient else header.get("StudyInstanceUID")].append((folder, header))
    return [(_identifier(series), [folder for folder, _ in series]) for series in studies.values()] + unreadable


def read(patient: str, folders: list[Path], max_bytes: float) -> DicomScan:
    """Read the series of one patient.

    Args:
      patient: identifier for outputs.
      folders: one folder per series.
      max_bytes: largest size of one series, at 4 bytes per pixel.

    Raises:
      UserError: there is not exactly one FLAIR series, the series differ in size or position, or a series is damaged,
        incomplete, mixed or too large (see `read_series`).
    """
    series = {name: read_series(folder, max_bytes) for name, folder in _by_sequence(folders).items()}
    flair = series[_FLAIR]
    for name, other in list(series.items()):
        if other.shape != flair.shape or not np.allclose(other.affine, flair.affine, atol=1e-2):
            wrong = f"series differ in size or position ({other.folder} and {flair.folder})"
            remedy = "resample them onto one grid, or pass the FLAIR folder alone"
            skip_t2_or_raise(name, UserError(wrong, remedy))
            del series[name]
    grid = axial_grid(flair.affine, flair.folder)
    axial = {name: grid.turn(smallest_dtype(one.pixels(), one.folder)) for name, one in series.items()}
    image = stack_sequences(axial, flair.folder)
    index = np.arange(1, len(image) + 1, dtype=np.int32)
    sources = {name: f"{one.folder.name}/" for name, one in series.items()}
    return DicomScan(Volume(patient, image, None, index, {}), grid.spacing_mm, sources, grid, flair.headers)


def sequence(folder_name: str, description: str = "", agent: str = "") -> str | None:
    """Identify the sequence of a series.

    "T1 FLAIR" is a T1 sequence (the name of one vendor for fast T1 imaging), "T2 FLAIR" is FLAIR.

    Args:
      folder_name: name of the series folder. It takes precedence over the description.
      description: SeriesDescription.
      agent: ContrastBolusAgent. Any agent makes T1 a post-contrast sequence, unless the text says "pre".

    Returns:
      A name in CHANNELS, "other" for another sequence, or None if neither text identifies it.
    """
    if folder_name.lower() == "t2":
        return _T2
    for text in (folder_name, description):
        words = re.split(r"[^a-z0-9+]+", text.lower())
        if any(map(_T1_WORD.fullmatch, words)):
            contrast = any(map(_CONTRAST_WORD.fullmatch, words)) or agent.strip().lower() not in ("", "no", "none")
            return _POST if contrast and "pre" not in words else _T1
        if re.search(r"flair|tirm|dark.?fluid", text.lower()):
            return _FLAIR
        if any(map(_OTHER_WORD.fullmatch, words)):
            return "other"
    return None


def _sequence_of(folder: Path, header: pydicom.Dataset) -> str | None:
    return sequence(folder.name, str(header.get("SeriesDescription", "")), str(header.get("ContrastBolusAgent", "")))


def _identifier(series: list[tuple[Path, pydicom.Dataset]]) -> str:
    """Return `series-` and a hash of the series UID of FLAIR, or of the first series if FLAIR is not identified."""
    flair = [header for folder, header in series if _sequence_of(folder, header) == _FLAIR] or [series[0][1]]
    return "series-" + hashlib.sha256(str(flair[0].get("SeriesInstanceUID")).encode()).hexdigest()[:8]


def _by_sequence(folders: list[Path]) -> dict[str, Path]:
    """Return the series folder of each sequence in CHANNELS; other series are ignored."""
    chosen = {}
    for folder in folders:
        name = _sequence_of(folder, read_header(series_files(folder)[0]))
        name = _FLAIR if name is None and len(folders) == 1 else name
        if name in chosen:
            raise UserError(f"two {name} series ({folder} and {chosen[name]})", "remove one of them")
        if name in CHANNELS:
            chosen[name] = folder
    if _FLAIR not in chosen:
        names = ", ".join(map(str, folders))
        raise UserError(f"no FLAIR series ({names})", "rename the folder of the FLAIR series to flair")
    return chosen
