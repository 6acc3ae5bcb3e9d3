"""NIfTI scans: one file per sequence, a 4-D file with all sequences, or FLAIR alone.

    for patient, files in group(folder.glob("*.nii.gz")):
        scan = read(patient, files, max_bytes=4e9)
        scan.write_mask(mask, "out")     # out/<patient>_mask.nii.gz, with the affine and the shape of FLAIR

The end of the file name identifies the sequence, as in BraTS: _flair, _t1, _t1ce, _t2, or -t2f, -t1n, -t1c, -t2w. A 3-D
file with another name is FLAIR. The last axis of a 4-D file has 3 channels (T1, FLAIR, T1 with contrast) or 4 channels
(FLAIR, T1, T1 with contrast, T2, the order of the Medical Segmentation Decathlon).
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
from lgg_jax.scans.scan import Scan, output_path, over_limit, skip_t2_or_raise, smallest_dtype, stack_sequences

_T1, _FLAIR, _POST, _T2 = CHANNELS
_NAME = re.compile(r"(?:(.*)[-_])?(flair|t2f|t1|t1n|t1ce|t1gd|t1c|t2|t2w|seg)", re.IGNORECASE)
_SEQUENCES = {"flair": _FLAIR, "t2f": _FLAIR, "t1": _T1, "t1n": _T1, "t1ce": _POST, "t1gd": _POST, "t1c": _POST,
              "t2": _T2, "t2w": _T2}  # fmt: skip
_CHANNELS = {1: {_FLAIR: 0}, 3: {_T1: 0, _FLAIR: 1, _POST: 2}, 4: {_FLAIR: 0, _T1: 1, _POST: 2, _T2: 3}}
_UNITS_MM = {"meter": 1000.0, "micron": 0.001}
_TEXT_FIELDS = {"data_type", "db_name", "descrip", "aux_file", "intent_name"}


@dataclasses.dataclass(frozen=True)
class NiftiScan(Scan):
    """Scan that writes NIfTI.

    Attributes:
      grid: mapping between the axes of the input and axial slices.
      header: header of the FLAIR file.
    """

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
        header["cal_min"] = header["cal_max"] = 0  # The display window belongs to the image.
        for name in _TEXT_FIELDS & set(header.keys()):  # Some converters write the patient's name there.
            header[name] = b""
        path = output_path(folder, f"{self.volume.patient}_{what}.nii.gz")
        kind = nibabel.Nifti2Image if isinstance(header, nibabel.Nifti2Header) else nibabel.Nifti1Image
        nibabel.save(kind(self.grid.turn_back(values), header.get_best_affine(), header), path)
        return path


def group(files: Iterable[Path]) -> list[tuple[str, list[Path]]]:
    """Group NIfTI files by patient.

    If no file name ends in a sequence, each file is a patient. If some do, the other files are skipped with a warning.

    Returns:
      (patient, files) per patient. The patient is the part of the name before the sequence, or else the folder's name.
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
        warnings.warn(f"file is skipped because its name does not end in a sequence ({path}); "
                      "rename it to end in _flair, _t1, _t1ce or _t2 if it is one", stacklevel=2)  # fmt: skip
    return list(groups.items())


def read(patient: str, files: list[Path], max_bytes: float) -> NiftiScan:
    """Read the files of one patient. No file is decompressed beyond the size in its header.

    Args:
      patient: identifier for outputs.
      files: one file per sequence, or a single 4-D file.
      max_bytes: largest size of one file, decompressed and at no less than 4 bytes per voxel.

    Raises:
      UserError: there is not exactly one FLAIR file, the files differ in shape or affine, or a file is damaged, not 3-D
        or 4-D, not finite or larger than `max_bytes`.
    """
    paths = _by_sequence(files)
    flair, header = paths[_FLAIR], None
    sequences, sources = {}, {}
    for name, path in sorted(paths.items(), key=lambda item: item[0] != _FLAIR):
        values, own_header = _load(path, max_bytes)
        header = header or own_header
        if error := _grid_error(flair, header, path, own_header):
            skip_t2_or_raise(name, error)
            continue
        for sequence, channel in _channels(path, values.shape, name, alone=len(files) == 1).items():
            sequences[sequence] = values[..., channel]
            sources[sequence] = path.name if values.shape[3] == 1 else f"{path.name}, channel {channel}"
    grid = axial_grid(_affine(header, flair), flair)
    image = stack_sequences({name: grid.turn(smallest_dtype(values, paths.get(name, flair)))
                             for name, values in sequences.items()}, flair)  # fmt: skip
    index = np.arange(1, len(image) + 1, dtype=np.int32)
    return NiftiScan(Volume(patient, image, None, index, {}), grid.spacing_mm, sources, grid, header)


def _stem(path: Path) -> str:
    return re.sub(r"\.nii(\.gz)?$", "", path.name, flags=re.IGNORECASE)


def _by_sequence(files: list[Path]) -> dict[str, Path]:
    """Return the file of each sequence; a file with another name counts as FLAIR, a ground-truth mask is ignored."""
    paths = {}
    for path in files:
        match = _NAME.fullmatch(_stem(path))
        sequence = _SEQUENCES.get(match[2].lower()) if match else _FLAIR
        if sequence in paths:
            raise UserError(f"two {sequence} files ({path} and {paths[sequence].name})", "remove one of them")
        if sequence:
            paths[sequence] = path
    if _FLAIR not in paths:
        names = ", ".join(path.name for path in files)
        raise UserError(f"no FLAIR file ({files[0].parent}: {names})", "add a file that ends in _flair.nii.gz")
    return paths


def _channels(path: Path, shape: tuple[int, ...], sequence: str, alone: bool) -> dict[str, int]:
    """Return the index of each sequence on the last axis; `alone` if the patient has no other file."""
    count = shape[3]
    if count == 1:
        return {sequence: 0}
    if count not in _CHANNELS or not alone:
        raise UserError(f"4-D file has {count} channels ({path})", "pass a single file with 3 channels (T1, FLAIR, T1 "
                        "with contrast) or 4 channels (FLAIR, T1, T1 with contrast, T2)")  # fmt: skip
    return _CHANNELS[count]


def _load(path: Path, max_bytes: float) -> tuple[np.ndarray, nibabel.Nifti1Header]:
    """Return scaled values (i, j, k, channel) and header. Extensions are not read: they can hold a DICOM header."""
    try:
        with _open_decompressed(path) as stream:
            start = stream.read(540)
            header = _header(path, start)
            offset, dtype, shape = header.get_data_offset(), header.get_data_dtype(), _shape(path, header)
            size = offset + dtype.itemsize * math.prod(shape)
            in_memory = max(size, 4 * math.prod(shape))
            if in_memory > max_bytes:
                raise over_limit(path, max_bytes, in_memory)
            data = start + stream.read(max(size - len(start), 0))
        if offset < header.sizeof_hdr or len(data) < size:
            raise EOFError("truncated")
        header.get_best_affine(), header.get_xyzt_units()  # Raise errors here that would be raised later.
        raw = np.frombuffer(data, dtype, math.prod(shape), offset).reshape(shape, order="F")
        return apply_read_scaling(raw, *header.get_slope_inter()), header
    except (OSError, EOFError, KeyError, zlib.error, HeaderDataError, ValueError, OverflowError) as error:
        raise UserError(f"file cannot be read as NIfTI ({path}: {error})", "restore or export it again") from error


@contextlib.contextmanager
def _open_decompressed(path: Path) -> Iterator[BinaryIO]:
    with path.open("rb") as file:
        compressed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        yield gzip.GzipFile(fileobj=file) if compressed else file


def _header(path: Path, start: bytes) -> nibabel.Nifti1Header:
    for kind in (nibabel.Nifti1Header, nibabel.Nifti2Header):
        if kind.may_contain_header(start[: kind.sizeof_hdr]):
            return kind(start[: kind.sizeof_hdr])
    raise UserError(f"file is not NIfTI ({path})", "pass a .nii or .nii.gz file")


def _shape(path: Path, header: nibabel.Nifti1Header) -> tuple[int, int, int, int]:
    """Return the shape (i, j, k, channel); UserError unless the file is 3-D or 4-D and numeric."""
    shape, dtype = tuple(map(int, header.get_data_shape())), header.get_data_dtype()
    if len(shape) not in (3, 4) or min(shape) < 1:
        sides = "×".join(map(str, shape))
        raise UserError(f"shape {sides} is not a 3-D or 4-D volume ({path})", "pass a volume or a 4-D file of channels")
    if dtype.kind not in "iuf":
        raise UserError(f"voxels are of type {dtype} ({path})", "export the file as integers or floats")
    return (*shape, 1)[:4]


def _affine(header: nibabel.Nifti1Header, path: Path) -> np.ndarray:
    """Return the affine (4, 4) float64, from voxel indices to mm."""
    if header["sform_code"] == 0 and header["qform_code"] == 0:
        warnings.warn(f"header has no orientation ({path}); x is assumed to run from right to left", stacklevel=3)
    affine = header.get_best_affine().astype(np.float64)
    affine[:3] *= _UNITS_MM.get(header.get_xyzt_units()[0], 1.0)
    return affine


def _grid_error(flair: Path, flair_header, path: Path, header) -> UserError | None:
    """Return an error if a sequence is not on the grid of FLAIR, because the network takes them as channels."""
    same = _shape(path, header)[:3] == _shape(flair, flair_header)[:3]
    if not same or not np.allclose(header.get_best_affine(), flair_header.get_best_affine(), atol=1e-2):
        wrong = f"files differ in {'shape' if not same else 'affine'} ({path} and {flair})"
        return UserError(wrong, "resample them onto one grid, or pass FLAIR alone")
    return None
