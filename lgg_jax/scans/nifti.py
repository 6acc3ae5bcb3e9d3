"""NIfTI scans: one file a sequence, a 4-D file, or FLAIR alone.

    for patient, files in group(folder.glob("*.nii.gz")):
        scan = read(patient, files, max_bytes=4e9)
        scan.write_mask(mask, "out")     # out/<patient>_mask.nii.gz, with the affine and the shape of FLAIR

A sequence is told by the end of the name, as BraTS writes it: _flair _t1 _t1ce _t2, or -t2f -t1n -t1c -t2w. A file with
no such end is FLAIR when it has 3 dimensions; with 4, the last axis holds T1, FLAIR, T1 with contrast (3 of them), or
FLAIR, T1, T1 with contrast, T2 (4 of them, the order of the Medical Segmentation Decathlon).
"""

import collections
import contextlib
import dataclasses
import gzip
import math
import re
import warnings
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import nibabel
import numpy as np
from nibabel.spatialimages import HeaderDataError
from nibabel.volumeutils import apply_read_scaling

from lgg_jax.data.axial import AxialGrid, axial_grid
from lgg_jax.data.volume import CHANNELS, Volume
from lgg_jax.errors import UserError
from lgg_jax.scans.kinds import folder_name
from lgg_jax.scans.scan import Scan, compact, output_path, refuse_sequence, stack_sequences

_T1, _FLAIR, _POST, _T2 = CHANNELS
_NAME = re.compile(r"(?:(.*)[-_])?(flair|t2f|t1|t1n|t1ce|t1gd|t1c|t2|t2w|seg)", re.IGNORECASE)
_SEQUENCES = {"flair": _FLAIR, "t2f": _FLAIR, "t1": _T1, "t1n": _T1, "t1ce": _POST, "t1gd": _POST, "t1c": _POST,
              "t2": _T2, "t2w": _T2}  # fmt: skip
_CHANNELS = {1: {_FLAIR: 0}, 3: {_T1: 0, _FLAIR: 1, _POST: 2}, 4: {_FLAIR: 0, _T1: 1, _POST: 2, _T2: 3}}
_UNITS_MM = {"meter": 1000.0, "micron": 0.001}
_TEXTS = {"data_type", "db_name", "descrip", "aux_file", "intent_name"}


@dataclasses.dataclass(frozen=True)
class NiftiScan(Scan):
    """Attributes: `grid`, the way back to the input's axes; `header` of the FLAIR file."""

    grid: AxialGrid
    header: nibabel.Nifti1Header

    def write_mask(self, mask: np.ndarray, folder) -> Path:
        return self._write(mask.astype(np.uint8), folder, "mask")

    def write_probability(self, probability: np.ndarray, folder) -> Path:
        return self._write(probability.astype(np.float32), folder, "probability")

    def _write(self, values: np.ndarray, folder, what: str) -> Path:
        header = self.header.copy()
        header.set_data_dtype(values.dtype)
        header.set_slope_inter(1, 0)
        header["cal_min"] = header["cal_max"] = 0  # the display window of the image
        for name in _TEXTS & set(header.keys()):  # converters write patients' names there
            header[name] = b""
        path = output_path(folder, f"{self.volume.patient}_{what}.nii.gz")
        kind = nibabel.Nifti2Image if isinstance(header, nibabel.Nifti2Header) else nibabel.Nifti1Image
        nibabel.save(kind(self.grid.turn_back(values), header.get_best_affine(), header), path)
        return path


def group(files: Iterable[Path]) -> list[tuple[str, list[Path]]]:
    """The files of each patient, with the patient's name: what stands before the sequence, else the folder's name.

    Where no file names a sequence, each is a patient; where some do, the others are left out with a warning.
    """
    groups, others = collections.defaultdict(list), []
    for path in sorted(files):
        match = _NAME.fullmatch(_stem(path))
        if match:
            groups[match[1] or folder_name(path.parent)].append(path)
        else:
            others.append(path)
    if not groups:
        return [(_stem(path), [path]) for path in others]
    for path in others:
        warnings.warn(f"{path} names no sequence (_flair, _t1, _t1ce) and is not read", stacklevel=2)
    return list(groups.items())


def read(patient: str, files: list[Path], max_bytes: float) -> NiftiScan:
    """Opens the files of one patient.

    UserError: no FLAIR or two, unequal grids, not 3 or 4 dimensions, NaN, truncated, or larger than `max_bytes` (of one
    file, unpacked). No more than what the header announces is ever unpacked.
    """
    paths = _by_sequence(files)
    flair, header = paths[_FLAIR], None
    sequences, sources = {}, {}
    for name, path in sorted(paths.items(), key=lambda item: item[0] != _FLAIR):
        values, own_header = _load(path, max_bytes)
        header = header or own_header
        if error := _other_grid(flair, header, path, own_header):
            refuse_sequence(name, error)
            continue
        for sequence, channel in _channels(path, values.shape, name, alone=len(files) == 1).items():
            sequences[sequence] = values[..., channel]
            sources[sequence] = path.name if values.shape[3] == 1 else f"{path.name}, channel {channel}"
    grid = axial_grid(_affine(header, flair), flair)
    image = stack_sequences({name: grid.turn(compact(values, paths.get(name, flair)))
                             for name, values in sequences.items()}, flair)  # fmt: skip
    index = np.arange(1, len(image) + 1, dtype=np.int32)
    return NiftiScan(Volume(patient, image, None, index, {}), grid.spacing_mm, sources, grid, header)


def _stem(path: Path) -> str:
    return re.sub(r"\.nii(\.gz)?$", "", path.name, flags=re.IGNORECASE)


def _by_sequence(files: list[Path]) -> dict[str, Path]:
    paths = {}
    for path in files:
        match = _NAME.fullmatch(_stem(path))
        sequence = _SEQUENCES.get(match[2].lower()) if match else _FLAIR
        if sequence in paths:
            raise UserError(f"{path} and {paths[sequence].name} are both {sequence}", "keep one of the two")
        if sequence:
            paths[sequence] = path
    if _FLAIR not in paths:
        names = ", ".join(path.name for path in files)
        raise UserError(f"{files[0].parent} has no FLAIR sequence ({names})", "add the file …_flair.nii.gz")
    return paths


def _channels(path: Path, shape: tuple[int, ...], sequence: str, alone: bool) -> dict[str, int]:
    """Which sequence each channel of the last axis is."""
    count = shape[3]
    if count == 1:
        return {sequence: 0}
    if count not in _CHANNELS or not alone:
        raise UserError(f"{path} holds {count} volumes", "expected 3 (T1, FLAIR, T1 with contrast) or 4 (FLAIR, T1, "
                        "T1 with contrast, T2) in a file of their own")  # fmt: skip
    return _CHANNELS[count]


def _load(path: Path, max_bytes: float) -> tuple[np.ndarray, nibabel.Nifti1Header]:
    """Values (i, j, k, channel) and header; extensions, which may hold a whole DICOM header, are skipped."""
    try:
        with _unpacked(path) as stream:
            start = stream.read(540)
            header = _header(path, start)
            offset, dtype, shape = header.get_data_offset(), header.get_data_dtype(), _shape(path, header)
            size = offset + dtype.itemsize * math.prod(shape)
            if max(size, 4 * math.prod(shape)) > max_bytes:
                raise UserError(f"{path} unpacks to {size / 1e9:.3g} GB, over the limit of {max_bytes / 1e9:g}",
                                "raise the limit if that is meant")  # fmt: skip
            data = start + stream.read(max(size - len(start), 0))
        if offset < header.sizeof_hdr or len(data) < size:
            raise EOFError("truncated")
        header.get_best_affine(), header.get_xyzt_units()  # raise here what they would raise later
        raw = np.frombuffer(data, dtype, math.prod(shape), offset).reshape(shape, order="F")
        return apply_read_scaling(raw, *header.get_slope_inter()), header
    except (OSError, EOFError, KeyError, zlib.error, HeaderDataError, ValueError, OverflowError) as error:
        raise UserError(f"{path} cannot be read as NIfTI ({error})", "restore or export the file again") from error


@contextlib.contextmanager
def _unpacked(path: Path) -> Iterator[BinaryIO]:
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        yield gzip.GzipFile(fileobj=file) if packed else file


def _header(path: Path, start: bytes) -> nibabel.Nifti1Header:
    for kind in (nibabel.Nifti1Header, nibabel.Nifti2Header):
        if kind.may_contain_header(start[: kind.sizeof_hdr]):
            return kind(start[: kind.sizeof_hdr])
    raise UserError(f"{path} is not NIfTI", "expected the header of a .nii or .nii.gz file")


def _shape(path: Path, header: nibabel.Nifti1Header) -> tuple[int, int, int, int]:
    """(i, j, k, channel); UserError on what is no volume of numbers."""
    shape, dtype = tuple(map(int, header.get_data_shape())), header.get_data_dtype()
    if len(shape) not in (3, 4) or min(shape) < 1:
        sides = "×".join(map(str, shape))
        raise UserError(f"{path} has {len(shape)} dimensions ({sides})", "expected a volume of 3, or 4 with channels")
    if dtype.kind not in "iuf":
        raise UserError(f"{path} holds values of type {dtype}", "export it as integers or floats")
    return (*shape, 1)[:4]


def _affine(header: nibabel.Nifti1Header, path: Path) -> np.ndarray:
    """(4, 4) to mm."""
    if header["sform_code"] == 0 and header["qform_code"] == 0:
        warnings.warn(f"{path} does not tell its orientation: x is taken to run to the left", stacklevel=3)
    affine = header.get_best_affine().astype(np.float64)
    affine[:3] *= _UNITS_MM.get(header.get_xyzt_units()[0], 1.0)
    return affine


def _other_grid(flair: Path, flair_header, path: Path, header) -> UserError | None:
    """What is wrong where a sequence is not on FLAIR's grid: the network compares them pixel by pixel."""
    same = _shape(path, header)[:3] == _shape(flair, flair_header)[:3]
    if not same or not np.allclose(header.get_best_affine(), flair_header.get_best_affine(), atol=1e-2):
        what = "shape" if not same else "affine"
        return UserError(f"{path} and {flair} differ in {what}", "resample them onto one grid, or give FLAIR alone")
    return None
