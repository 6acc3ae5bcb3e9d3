"""Input scans for prediction: TIFF folders, NIfTI files and DICOM series.

    for source in find_scans("BraTS2020_Validation"):
        scan = source.read()
        scan.write_mask(mask, f"out/{source.patient}")

`read` raises UserError if one scan is damaged; the other scans can still be read.
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

_MAX_DEPTH = 5  # of nested folders: data set, group, patient, study, series


@dataclasses.dataclass(frozen=True)
class Source:
    """A scan on disk that has not been read.

    Attributes:
      patient: identifier for outputs. It is a valid file name and unique within one `find_scans`. For DICOM it is a
        hash.
      path: file or folder of the scan, for messages.
      opener: function that reads the scan, given the identifier.
    """

    patient: str
    path: Path
    opener: Callable[[str], Scan]

    def read(self) -> Scan:
        """Read the scan.

        Raises:
          UserError: the scan is damaged, incomplete, too large or not readable.
        """
        try:
            return self.opener(self.patient)
        except OSError as error:
            raise _unreadable(self.path, error) from error


def find_scans(path, max_gigabytes: float = 4.0) -> list[Source]:
    """List the scans at a path, sorted by name. No voxel is read.

    Args:
      path: a NIfTI file, or a folder. The folder may hold one patient's TIFF slices, NIfTI files of one or more
        patients, one DICOM series, one patient's DICOM series in subfolders, or any of these in subfolders.
      max_gigabytes: largest size of one sequence after decompression, in GB (1e9 bytes).

    Returns:
      A Source per scan. A folder without scans and without subfolders is listed too; its `read` raises UserError.

    Raises:
      UserError: the path does not exist, is a file of another format, or needs a library that is not installed.
    """
    path, max_bytes = Path(path), max_gigabytes * 1e9
    try:
        return _with_unique_names(_sources(path, max_bytes))
    except OSError as error:
        raise _unreadable(path, error) from error


def read_scan(path, max_gigabytes: float = 4.0) -> Scan:
    """Open the only scan at `path`.

    Raises:
      UserError: as `find_scans` and `Source.read`, or there are several scans.
    """
    sources = find_scans(path, max_gigabytes)
    if len(sources) > 1:
        raise UserError(f"{path} holds {len(sources)} scans", "pass the path of one of them")
    return sources[0].read()


def _sources(path: Path, max_bytes: float) -> list[Source]:
    if path.is_dir():
        return _folder_sources(path, max_bytes, _MAX_DEPTH)
    if is_nifti(path):
        return _nifti_sources([path], max_bytes)
    remedy = "pass a NIfTI file, or the folder of a DICOM series or of TIFF slices"
    if path.exists():
        raise UserError(f"file format is not supported ({path})", remedy)
    raise UserError(f"no such file or folder: {path}", remedy)


def _folder_sources(folder: Path, max_bytes: float, depth: int) -> list[Source]:
    """The scans directly in `folder`. If there are none, the scans in its subfolders, `depth` levels down."""
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
    return sources or [Source(folder_name(folder), folder, lambda _: _raise_no_scan(folder))]


def _nifti_sources(files: list[Path], max_bytes: float) -> list[Source]:
    if not files:
        return []
    nifti = _import_format("nifti")
    return [
        Source(name, group[0], lambda patient, group=group: nifti.read(patient, group, max_bytes))
        for name, group in nifti.group(files)
    ]


def _dicom_sources(folders: list[Path], max_bytes: float) -> list[Source]:
    if not folders:
        return []
    dicom = _import_format("dicom")
    return [
        Source(name, group[0] if len(group) == 1 else group[0].parent,
               lambda patient, group=group: dicom.read(patient, group, max_bytes))
        for name, group in dicom.group(folders)
    ]  # fmt: skip


def _is_series(folder: Path) -> bool:
    return any(map(is_dicom, sorted(folder.iterdir())))


def _import_format(name: str) -> ModuleType:
    """Import the module of a format; UserError if one of its optional libraries is not installed."""
    try:
        return importlib.import_module(f"lgg_jax.scans.{name}")
    except ModuleNotFoundError as error:
        raise UserError(f"{error.name} is not installed", f"pip install 'lgg-jax[{name}]'") from error


def _unreadable(path: Path, error: OSError) -> UserError:
    return UserError(f"file or folder cannot be read ({error.filename or path}: {error.strerror})",
                     "check its permissions")  # fmt: skip


def _raise_no_scan(folder: Path) -> Scan:
    raise UserError(f"folder contains no scan ({folder})",
                    "it must contain TIFF slices named …_<number>.tif, NIfTI files or DICOM files")  # fmt: skip


def _with_unique_names(sources: list[Source]) -> list[Source]:
    """Append "-2", "-3" … to repeated names. Case is ignored, as some file systems ignore it."""
    unique = {}
    for source in sources:
        name, number = source.patient, 1
        while name.lower() in unique:
            number += 1
            name = f"{source.patient}-{number}"
        unique[name.lower()] = dataclasses.replace(source, patient=name)
    return list(unique.values())
