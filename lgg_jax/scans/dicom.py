"""DICOM scans: a folder a series, a file a slice; the mask becomes a DICOM SEG that references FLAIR's series.

    for patient, folders in group(folders):
        scan = read(patient, folders, max_bytes=4e9)
        scan.write_mask(mask, "out")     # out/series-1a2b3c4d_mask.dcm

A series alone is FLAIR unless its description says otherwise; several of one study are told by the folder's name or the
description. T2 is read from a folder of that name only: most studies have several T2 series, each on its own grid. The
patient id of outputs is a hash of the series UID: a PatientID names a person to a hospital.
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
from lgg_jax.scans.scan import Scan, compact, output_path, refuse_sequence, stack_sequences
from lgg_jax.scans.series import read_header, read_series, series_files

_T1, _FLAIR, _POST, _T2 = CHANNELS
_FOLDERS = {"flair", "t1", "t1n", "t1ce", "t1c", "t1gd", "t2"}
_T1_WORD = re.compile(r"t1(?!\d).*|mprage|spgr|bravo")
_CONTRAST_WORD = re.compile(r"(t1w?)?\+?(c|ce|gd|c\+|post.*|gad.*|contrast|enhanced)")
_OTHER_WORD = re.compile(r"t2(?!\d).*|pd|dwi|adc|swi|dti|ep2d|loc|locali[sz]er|scout|survey")


@dataclasses.dataclass(frozen=True)
class DicomScan(Scan):
    """Attributes: `grid`, the way back to (slice, row, column) of the series; `headers`, FLAIR's by slice."""

    grid: AxialGrid
    headers: tuple[pydicom.Dataset, ...]

    def write_mask(self, mask: np.ndarray, folder) -> Path:
        return self._write(mask.astype(np.uint8), folder, "mask")

    def write_probability(self, probability: np.ndarray, folder) -> Path:
        """As a fractional SEG: in steps of 1/255."""
        return self._write(probability.astype(np.float32), folder, "probability")

    def _write(self, values: np.ndarray, folder, what: str) -> Path:
        path = output_path(folder, f"{self.volume.patient}_{what}.dcm")
        dicom_seg.encode(self.grid.turn_back(values), self.headers, self.volume.patient).save_as(path)
        return path


def group(folders: list[Path]) -> list[tuple[str, list[Path]]]:
    """Series folders by study, or all of them where each is named for a sequence; with an id for outputs.

    A folder whose header cannot be read stands alone under its own name: `read` says what is wrong.
    """
    one_patient = all(folder.name.lower() in _FOLDERS for folder in folders)
    studies, broken = collections.defaultdict(list), []
    for folder in folders:
        try:
            header = read_header(series_files(folder)[0])
        except UserError:
            broken.append((folder.name, [folder]))
        else:
            studies["" if one_patient else header.get("StudyInstanceUID")].append((folder, header))
    return [(_identifier(series), [folder for folder, _ in series]) for series in studies.values()] + broken


def read(patient: str, folders: list[Path], max_bytes: float) -> DicomScan:
    """Opens the series of one patient.

    UserError: no FLAIR or two, mixed series in a folder, a missing or duplicate slice, unequal grids, several frames in
    a file, damaged files, or larger than `max_bytes` (of one series, unpacked).
    """
    series = {name: read_series(folder, max_bytes) for name, folder in _by_sequence(folders).items()}
    flair = series[_FLAIR]
    for name, other in list(series.items()):
        if other.shape != flair.shape or not np.allclose(other.affine, flair.affine, atol=1e-2):
            wrong = f"{other.folder} and {flair.folder} differ in size or position"
            remedy = "resample them onto one grid, or give the folder of FLAIR alone"
            refuse_sequence(name, UserError(wrong, remedy))
            del series[name]
    grid = axial_grid(flair.affine, flair.folder)
    turned = {name: grid.turn(compact(one.pixels(), one.folder)) for name, one in series.items()}
    image = stack_sequences(turned, flair.folder)
    index = np.arange(1, len(image) + 1, dtype=np.int32)
    sources = {name: f"{one.folder.name}/" for name, one in series.items()}
    return DicomScan(Volume(patient, image, None, index, {}), grid.spacing_mm, sources, grid, flair.headers)


def sequence(folder_name: str, description: str = "", agent: str = "") -> str | None:
    """The name in CHANNELS, "other", or None where neither text tells.

    "T1 FLAIR" is a T1 sequence (a fast one of one maker), "T2 FLAIR" is FLAIR.
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


def _told(folder: Path, header: pydicom.Dataset) -> str | None:
    return sequence(folder.name, str(header.get("SeriesDescription", "")), str(header.get("ContrastBolusAgent", "")))


def _identifier(series: list[tuple[Path, pydicom.Dataset]]) -> str:
    """`series-` and a hash of FLAIR's series UID, of the first one's where none is told to be FLAIR."""
    flair = [header for folder, header in series if _told(folder, header) == _FLAIR] or [series[0][1]]
    return "series-" + hashlib.sha256(str(flair[0].get("SeriesInstanceUID")).encode()).hexdigest()[:8]


def _by_sequence(folders: list[Path]) -> dict[str, Path]:
    chosen = {}
    for folder in folders:
        name = _told(folder, read_header(series_files(folder)[0]))
        name = _FLAIR if name is None and len(folders) == 1 else name
        if name in chosen:
            raise UserError(f"{folder} and {chosen[name]} are both {name}", "keep one of the two")
        if name in CHANNELS:
            chosen[name] = folder
    if _FLAIR not in chosen:
        names = ", ".join(map(str, folders))
        raise UserError(f"no FLAIR series in {names}", "name the folder of the FLAIR series flair")
    return chosen
