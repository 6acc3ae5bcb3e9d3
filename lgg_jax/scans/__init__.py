"""Scans to predict on, found on disk and opened one by one: TIFF folders, NIfTI files, DICOM series.

    for source in find_scans("BraTS2020_Validation"):
        scan = source.read()             # UserError about this one scan: the others can still be read
        scan.write_mask(mask, f"out/{source.patient}")
"""

import dataclasses
import importlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

from lgg_jax.data.layouts.kaggle import patient_id
from lgg_jax.errors import UserError
from lgg_jax.scans import tiff
from lgg_jax.scans.kinds import folder_name, is_dicom, is_nifti
from lgg_jax.scans.scan import Scan

_DEPTH = 5  # folders within folders: data set, group, patient, study, series


@dataclasses.dataclass(frozen=True)
class Source:
    """A scan on disk.

    Attributes:
      patient: id for outputs, a file name unlike any other of the same `find_scans`. Of DICOM it is a hash.
      path: the file or folder, to be named in messages.
      opener: reads it under the given id.
    """

    patient: str
    path: Path
    opener: Callable[[str], Scan]

    def read(self) -> Scan:
        """UserError with one line on what is wrong with this scan."""
        try:
            return self.opener(self.patient)
        except OSError as error:
            raise _unreadable(self.path, error) from error


def find_scans(path, max_gigabytes: float = 4.0) -> list[Source]:
    """What `path` holds, in the order of names.

    Args:
      path: a patient's TIFF folder, a NIfTI file, a folder with the NIfTI files of one patient or more, a DICOM series
        folder, a folder of one patient's series; or a folder of any of these.
      max_gigabytes: the most that one sequence may take once unpacked; larger ones raise UserError when read.

    A folder that holds neither scans nor folders is in the list, and reading it raises UserError. UserError here and
    now: there is nothing at `path`, it is a file of another kind, or the library of its format is not installed.
    """
    path, max_bytes = Path(path), max_gigabytes * 1e9
    try:
        return _with_unique_names(_sources(path, max_bytes))
    except OSError as error:
        raise _unreadable(path, error) from error


def _sources(path: Path, max_bytes: float) -> list[Source]:
    if path.is_dir():
        return _folder_sources(path, max_bytes, _DEPTH)
    if is_nifti(path):
        return _nifti_sources([path], max_bytes)
    if path.exists():
        raise UserError(f"{path} is no scan", "give a NIfTI file, or the folder of a DICOM series or of TIFF slices")
    raise UserError(f"no such file or folder: {path}", "give a NIfTI file, a DICOM or a TIFF folder")


def _folder_sources(folder: Path, max_bytes: float, depth: int) -> list[Source]:
    """What lies in the folder itself; where that is nothing, what lies in its folders."""
    sources = []
    if tiff.is_patient(folder):
        name = patient_id(folder_name(folder))
        sources.append(Source(name, folder, lambda patient: tiff.read(patient, folder, max_bytes)))
    sources += _nifti_sources(list(filter(is_nifti, folder.iterdir())), max_bytes)
    sources += _dicom_sources([folder] if _is_series(folder) else [], max_bytes)
    folders = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not sources and folders and depth:
        series = [path for path in folders if _is_series(path)]
        sources += _dicom_sources(series, max_bytes)
        for path in folders:
            sources += [] if path in series else _folder_sources(path, max_bytes, depth - 1)
    return sources or [Source(folder_name(folder), folder, lambda _: _refuse(folder))]


def _nifti_sources(files: list[Path], max_bytes: float) -> list[Source]:
    if not files:
        return []
    nifti = _module("nifti")
    return [
        Source(name, group[0], lambda patient, group=group: nifti.read(patient, group, max_bytes))
        for name, group in nifti.group(files)
    ]


def _dicom_sources(folders: list[Path], max_bytes: float) -> list[Source]:
    if not folders:
        return []
    dicom = _module("dicom")
    return [
        Source(name, group[0] if len(group) == 1 else group[0].parent,
               lambda patient, group=group: dicom.read(patient, group, max_bytes))
        for name, group in dicom.group(folders)
    ]  # fmt: skip


def _is_series(folder: Path) -> bool:
    return any(map(is_dicom, sorted(folder.iterdir())))


def _module(name: str) -> ModuleType:
    """The format's module, whose libraries may not be there."""
    try:
        return importlib.import_module(f"lgg_jax.scans.{name}")
    except ModuleNotFoundError as error:
        raise UserError(f"{error.name} is not installed", f"pip install 'lgg-jax[{name}]'") from error


def _unreadable(path: Path, error: OSError) -> UserError:
    return UserError(f"{error.filename or path} cannot be read ({error.strerror})", "check that it is yours to read")


def _refuse(folder: Path) -> Scan:
    raise UserError(f"{folder} holds no scan", "expected slices …_<number>.tif, .nii or .nii.gz files, or DICOM files")


def _with_unique_names(sources: list[Source]) -> list[Source]:
    """The second of a name gets "-2", and so on; capitals alone make no difference to some file systems."""
    unique = {}
    for source in sources:
        name, number = source.patient, 1
        while name.lower() in unique:
            number += 1
            name = f"{source.patient}-{number}"
        unique[name.lower()] = dataclasses.replace(source, patient=name)
    return list(unique.values())
