"""One DICOM series in one folder: its headers in the order of positions, checked for gaps, then its pixels.

    series = read_series(Path("flair"), max_bytes=4e9)
    values = series.pixels()                            # (slice, row, column)

Of a header only the tags below are read: no name, birth date or hospital number is ever in memory.
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

_NEEDED = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID",
           "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "Rows", "Columns")  # fmt: skip
_PIXELS = ("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "SamplesPerPixel",
           "PhotometricInterpretation", "PlanarConfiguration", "NumberOfFrames", "RescaleSlope",
           "RescaleIntercept")  # fmt: skip
_TAGS = (*_NEEDED, *_PIXELS, "Modality", "SliceThickness", "SeriesDescription", "ContrastBolusAgent")
_NUMBERS = {"ImagePositionPatient": 3, "ImageOrientationPatient": 6, "PixelSpacing": 2, "Rows": 1, "Columns": 1}
# What pydicom and the decoders of compressed pixels let through when a file is damaged.
_BROKEN = (InvalidDicomError, OSError, EOFError, ValueError, TypeError, KeyError, IndexError, AttributeError,
           RuntimeError, struct.error)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Series:
    """Attributes: `files` and `headers` by position along the normal of the slices."""

    folder: Path
    files: tuple[Path, ...]
    headers: tuple[pydicom.Dataset, ...]

    @property
    def shape(self) -> tuple[int, int, int]:
        """(slice, row, column)."""
        return len(self.files), self.headers[0].Rows, self.headers[0].Columns

    @property
    def affine(self) -> np.ndarray:
        """(4, 4), (slice, row, column) to mm with x to the right, y to the front, z up (the NIfTI convention)."""
        first, last, steps = self.headers[0], self.headers[-1], len(self.headers) - 1
        affine = spatial.create_affine_matrix_from_attributes(
            first.ImagePositionPatient,
            first.ImageOrientationPatient,
            first.PixelSpacing,
            1.0 if steps else float(first.get("SliceThickness") or 0),
            index_convention="DR",
            slices_first=True,
            handedness="LEFT_HANDED",  # slices along row × column, the order of read_series
        )
        if steps:
            # highdicom takes slices to be stacked along the normal; the positions tell where they are.
            affine[:3, 0] = np.subtract(last.ImagePositionPatient, first.ImagePositionPatient) / steps
        return spatial.convert_affine_to_convention(affine, "LPH", "RAH")

    def pixels(self) -> np.ndarray:
        """(slice, row, column), the rescaling of each slice applied."""
        planes = []
        for path in self.files:
            try:
                dataset = read_header(path, "PixelData")
                plane = pydicom.pixels.apply_rescale(dataset.pixel_array, dataset)
            except _BROKEN as error:
                raise _unreadable(path, error) from error
            if plane.shape != self.shape[1:]:
                raise UserError(f"{path} holds pixels of shape {plane.shape}", "restore or export the file again")
            planes.append(plane)
        return np.stack(planes)


def series_files(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.iterdir()) if is_dicom(path)]


def read_header(path: Path, *tags: str) -> pydicom.Dataset:
    """The tags that this module knows, and those in `tags`; UserError on what is no DICOM file."""
    try:
        meta = pydicom.filereader.read_file_meta_info(path)
        if meta.get("TransferSyntaxUID") == pydicom.uid.DeflatedExplicitVRLittleEndian:  # unpacked without a bound
            raise UserError(f"{path} is a deflated DICOM file", "store it with another transfer syntax")
        return pydicom.dcmread(path, specific_tags=[*_TAGS, *tags], stop_before_pixels=not tags)
    except _BROKEN as error:
        raise _unreadable(path, error) from error


def read_series(folder: Path, max_bytes: float) -> Series:
    """UserError: mixed series, a missing or duplicate slice, damaged files, or larger than `max_bytes`."""
    files = series_files(folder)
    if sum(path.stat().st_size for path in files) > max_bytes:
        raise UserError(f"{folder} is larger than {max_bytes / 1e9:g} GB", "raise the limit if that is meant")
    headers = [read_header(path) for path in files]
    for path, header in zip(files, headers, strict=True):
        _check_header(path, header, files[0], headers[0])
    size = 4 * len(files) * headers[0].Rows * headers[0].Columns
    if size > max_bytes:
        raise UserError(f"{folder} unpacks to {size / 1e9:.3g} GB, over the limit of {max_bytes / 1e9:g}",
                        "raise the limit if that is meant")  # fmt: skip
    positions = np.array([header.ImagePositionPatient for header in headers], float)
    order = spatial.get_plane_sort_index(positions, headers[0].ImageOrientationPatient, index_convention="RD")
    places = positions[order] @ spatial.get_normal_vector(headers[0].ImageOrientationPatient)
    _check_positions(folder, [files[i].name for i in order], places)
    return Series(folder, tuple(files[i] for i in order), tuple(headers[i] for i in order))


def _check_header(path: Path, header: pydicom.Dataset, first_path: Path, first: pydicom.Dataset) -> None:
    absent = [name for name in _NEEDED if header.get(name) in (None, "")]
    if absent:
        raise UserError(f"{path} has no {absent[0]}", "give a series of MR images, a file a slice")
    if header.get("Modality", "MR") != "MR":
        raise UserError(f"{path} is of modality {header.Modality}", "give a series of MR images")
    if header.SeriesInstanceUID != first.SeriesInstanceUID:
        raise UserError(f"{path.parent} mixes series ({first_path.name} and {path.name} are of different ones)",
                        "put each series into a folder of its own")  # fmt: skip
    if int(header.get("NumberOfFrames") or 1) > 1 or header.get("SamplesPerPixel", 1) != 1:
        raise UserError(f"{path} holds several frames or colours", "convert it to NIfTI (dcm2niix) or to single slices")
    for name, count in _NUMBERS.items():
        numbers = _numbers(path, header, name, count)
        if name != "ImagePositionPatient" and not np.allclose(numbers, _numbers(path, first, name, count), atol=1e-3):
            raise UserError(f"{path} and {first_path.name} differ in {name}", "leave the slices of one stack there")


def _numbers(path: Path, header: pydicom.Dataset, name: str, count: int) -> np.ndarray:
    """(count,) float64; pydicom hands malformed numbers on as text."""
    try:
        numbers = np.array(header[name].value, float).reshape(count)
    except ValueError as error:
        raise _unreadable(path, error) from error
    if not np.isfinite(numbers).all() or (name == "PixelSpacing" and numbers.min() <= 0):
        raise UserError(f"{path} has no valid {name}", "export it again")
    return numbers


def _check_positions(folder: Path, names: list[str], places: np.ndarray) -> None:
    """`places`: (slice,) in mm along the normal, ascending."""
    distances = np.diff(places)
    for i in np.flatnonzero(distances < 0.01):
        raise UserError(f"{folder}: {names[i]} and {names[i + 1]} are the same slice (at {places[i]:.2f} mm)",
                        "remove the duplicate")  # fmt: skip
    for i in np.flatnonzero(distances > 1.5 * np.median(distances)):
        raise UserError(f"{folder}: a slice is missing between {places[i]:.2f} and {places[i + 1]:.2f} mm "
                        f"({names[i]}, {names[i + 1]})", "restore the missing file")  # fmt: skip


def _unreadable(path: Path, error: Exception) -> UserError:
    reason = " ".join(str(error).split())
    if "missing dependencies" in reason:  # pydicom found no decoder for the compression
        remedy = "pip install pylibjpeg pylibjpeg-libjpeg pylibjpeg-openjpeg, or export the series uncompressed"
        return UserError(f"{path} is compressed in a way that nothing installed decodes", remedy)
    return UserError(f"{path} cannot be read as DICOM ({reason[:200]})", "restore or export the file again")
