"""One DICOM series in a folder: headers sorted and checked first, pixels read later.

    series = read_series(Path("flair"), max_bytes=4e9)
    values = series.pixels()                            # (slice, row, column)

Only the tags listed below are read from a header. The patient's name, birth date and identifier are never in memory.
"""

import dataclasses
import struct
from pathlib import Path

import numpy as np
import pydicom
from highdicom import spatial
from pydicom.errors import InvalidDicomError

from lgg_jax.errors import UserError
from lgg_jax.scans.kinds import is_dicom
from lgg_jax.scans.scan import over_limit

_REQUIRED_TAGS = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID",
                  "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "Rows", "Columns")  # fmt: skip
_PIXEL_TAGS = ("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "SamplesPerPixel",
               "PhotometricInterpretation", "PlanarConfiguration", "NumberOfFrames", "RescaleSlope",
               "RescaleIntercept")  # fmt: skip
_TAGS = (*_REQUIRED_TAGS, *_PIXEL_TAGS, "Modality", "SliceThickness", "SeriesDescription", "ContrastBolusAgent")
# Numeric tags and the number of values in each.
_NUMBERS = {"ImagePositionPatient": 3, "ImageOrientationPatient": 6, "PixelSpacing": 2, "Rows": 1, "Columns": 1}
# What pydicom and the pixel decoders raise on damaged files.
_READ_ERRORS = (InvalidDicomError, OSError, EOFError, ValueError, TypeError, KeyError, IndexError, AttributeError,
                RuntimeError, struct.error)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Series:
    """Headers of a series, sorted by slice location along the slice normal, row × column.

    Attributes:
      folder: folder of the series.
      files: one file per slice, sorted.
      headers: header of each file, in the same order, without pixels.
    """

    folder: Path
    files: tuple[Path, ...]
    headers: tuple[pydicom.Dataset, ...]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of slices, rows and columns."""
        return len(self.files), self.headers[0].Rows, self.headers[0].Columns

    @property
    def affine(self) -> np.ndarray:
        """(4, 4) float64, from (slice, row, column) to mm; x to the right, y to the front, z up (NIfTI convention)."""
        first, last, steps = self.headers[0], self.headers[-1], len(self.headers) - 1
        affine = spatial.create_affine_matrix_from_attributes(
            first.ImagePositionPatient,
            first.ImageOrientationPatient,
            first.PixelSpacing,
            1.0 if steps else float(first.get("SliceThickness") or 0),
            index_convention="DR",
            slices_first=True,
            handedness="LEFT_HANDED",  # Slices follow row × column, as read_series sorts them.
        )
        if steps:
            # highdicom assumes slices stacked exactly along the normal, so the step is measured between positions.
            affine[:3, 0] = np.subtract(last.ImagePositionPatient, first.ImagePositionPatient) / steps
        return spatial.convert_affine_to_convention(affine, "LPH", "RAH")

    def pixels(self) -> np.ndarray:
        """Read the pixels of all slices.

        Returns:
          (slice, row, column), with each slice's rescale slope and intercept applied; float64 if it has them, else the
          stored integer type.

        Raises:
          UserError: a file cannot be decoded or its pixels do not have the size in its header.
        """
        planes = []
        for path in self.files:
            try:
                dataset = read_header(path, "PixelData")
                plane = pydicom.pixels.apply_rescale(dataset.pixel_array, dataset)
            except _READ_ERRORS as error:
                raise _unreadable(path, error) from error
            if plane.shape != self.shape[1:]:
                raise UserError(f"pixels have shape {plane.shape}, expected {self.shape[1:]} ({path})",
                                "restore or export the file again")  # fmt: skip
            planes.append(plane)
        return np.stack(planes)


def series_files(folder: Path) -> list[Path]:
    """List the DICOM files directly in a folder, sorted by name."""
    return [path for path in sorted(folder.iterdir()) if is_dicom(path)]


def read_header(path: Path, *tags: str) -> pydicom.Dataset:
    """Read a file's header.

    Args:
      path: DICOM file.
      tags: keywords to read besides the tags of this module. Pixels are read only if "PixelData" is one of them.

    Raises:
      UserError: the file is not DICOM, is damaged or is deflated.
    """
    try:
        meta = pydicom.filereader.read_file_meta_info(path)
        if meta.get("TransferSyntaxUID") == pydicom.uid.DeflatedExplicitVRLittleEndian:
            # pydicom would inflate the file without a size limit.
            raise UserError(f"deflated DICOM files are not supported ({path})", "store it with another transfer syntax")
        return pydicom.dcmread(path, specific_tags=[*_TAGS, *tags], stop_before_pixels=not tags)
    except _READ_ERRORS as error:
        raise _unreadable(path, error) from error


def read_series(folder: Path, max_bytes: float) -> Series:
    """Read and check the headers of the series in a folder.

    Args:
      folder: folder with one file per slice, in any order.
      max_bytes: largest size of the files, and of the pixels at 4 bytes each.

    Raises:
      UserError: the folder mixes series, a slice is missing or duplicated, the slices differ in size, spacing or
        orientation, a file is damaged, or the series exceeds `max_bytes`.
    """
    files = series_files(folder)
    if sum(path.stat().st_size for path in files) > max_bytes:
        raise over_limit(folder, max_bytes)
    headers = [read_header(path) for path in files]
    for path, header in zip(files, headers, strict=True):
        _check_header(path, header, files[0], headers[0])
    size = 4 * len(files) * headers[0].Rows * headers[0].Columns
    if size > max_bytes:
        raise over_limit(folder, max_bytes, size)
    positions = np.array([header.ImagePositionPatient for header in headers], float)
    order = spatial.get_plane_sort_index(positions, headers[0].ImageOrientationPatient, index_convention="RD")
    locations = positions[order] @ spatial.get_normal_vector(headers[0].ImageOrientationPatient)
    _check_locations(folder, [files[i].name for i in order], locations)
    return Series(folder, tuple(files[i] for i in order), tuple(headers[i] for i in order))


def _check_header(path: Path, header: pydicom.Dataset, first_path: Path, first: pydicom.Dataset) -> None:
    """Raise UserError unless the header is that of a single-frame MR slice that matches the series' first file."""
    absent = [name for name in _REQUIRED_TAGS if header.get(name) in (None, "")]
    if absent:
        raise UserError(f"DICOM header has no {absent[0]} ({path})", "pass a series of MR images, one slice per file")
    if header.get("Modality", "MR") != "MR":
        raise UserError(f"modality is {header.Modality}, not MR ({path})", "pass a series of MR images")
    if header.SeriesInstanceUID != first.SeriesInstanceUID:
        raise UserError(f"folder contains several series ({path.parent}: {first_path.name} and {path.name})",
                        "move each series to a folder of its own")  # fmt: skip
    if int(header.get("NumberOfFrames") or 1) > 1 or header.get("SamplesPerPixel", 1) != 1:
        raise UserError(f"DICOM file has several frames or colour channels ({path})",
                        "convert the series to NIfTI (dcm2niix) or to single-frame files")  # fmt: skip
    for name, count in _NUMBERS.items():
        numbers = _numbers(path, header, name, count)
        if name != "ImagePositionPatient" and not np.allclose(numbers, _numbers(path, first, name, count), atol=1e-3):
            raise UserError(f"slices differ in {name} ({path} and {first_path.name})",
                            "keep the slices of one stack only")  # fmt: skip


def _numbers(path: Path, header: pydicom.Dataset, name: str, count: int) -> np.ndarray:
    """(count,) float64, checked, because pydicom returns malformed numbers as text."""
    try:
        numbers = np.array(header[name].value, float).reshape(count)
    except ValueError as error:
        raise _unreadable(path, error) from error
    if not np.isfinite(numbers).all() or (name == "PixelSpacing" and numbers.min() <= 0):
        raise UserError(f"DICOM header has no valid {name} ({path})", "export the file again")
    return numbers


def _check_locations(folder: Path, names: list[str], locations: np.ndarray) -> None:
    """Raise UserError if slices are duplicated or missing.

    Args:
      folder: folder of the series, for messages.
      names: file name of each slice.
      locations: (slice,) float64, slice locations along the normal in mm, ascending.
    """
    distances = np.diff(locations)
    for i in np.flatnonzero(distances < 0.01):
        raise UserError(f"two files are the same slice, at {locations[i]:.2f} mm ({folder}: {names[i]} and "
                        f"{names[i + 1]})", "remove one of them")  # fmt: skip
    for i in np.flatnonzero(distances > 1.5 * np.median(distances)):
        raise UserError(f"a slice is missing between {locations[i]:.2f} and {locations[i + 1]:.2f} mm ({folder}: "
                        f"{names[i]} and {names[i + 1]})", "restore the missing file")  # fmt: skip


def _unreadable(path: Path, error: Exception) -> UserError:
    reason = " ".join(str(error).split())
    if "missing dependencies" in reason:  # pydicom has no decoder for this compression.
        remedy = "pip install pylibjpeg pylibjpeg-libjpeg pylibjpeg-openjpeg, or export the series uncompressed"
        return UserError(f"no decoder is installed for the compression of the pixels ({path})", remedy)
    return UserError(f"file cannot be read as DICOM ({path}: {reason[:200]})", "restore or export the file again")
