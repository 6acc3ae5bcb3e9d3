"""DICOM series: rescaling, compressed pixels, damaged and incomplete files."""

import numpy as np
import pydicom
import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian, JPEGLosslessSV1, RLELossless, generate_uid
from scan_files import BIRTH, IMAGE, MASK, by_position, change, read, write_dicom

from lgg_jax.errors import UserError
from lgg_jax.scans import find_scans


def test_each_slice_is_rescaled_and_compressed_pixels_are_read(tmp_path):
    folder = write_dicom(tmp_path / "p", IMAGE[..., 1])
    for path in folder.iterdir():
        dataset = pydicom.dcmread(path)
        dataset.PixelData = ((dataset.pixel_array - 6) // 2).astype(np.uint16).tobytes()
        dataset.RescaleSlope, dataset.RescaleIntercept = 1, 0
        dataset.compress(RLELossless)
        dataset.save_as(path)
    np.testing.assert_array_equal(read(folder).volume.image[..., 1], IMAGE[..., 1])
    change(by_position(folder)[0].filename, RescaleSlope=1.5)
    image = read(folder).volume.image
    assert image.dtype == np.float32
    np.testing.assert_array_equal(image[0, ..., 1], IMAGE[0, ..., 1] * 1.5)
    np.testing.assert_array_equal(image[1:, ..., 1], IMAGE[1:, ..., 1])


def slices(folder):
    return [header.filename for header in by_position(folder)]


def missing(folder):
    folder.joinpath(slices(folder)[3]).unlink()


def duplicate(folder):
    dataset = pydicom.dcmread(slices(folder)[3])
    dataset.SOPInstanceUID = generate_uid()
    dataset.save_as(folder / "again.dcm")


def mixed(folder):
    change(slices(folder)[3], SeriesInstanceUID=generate_uid())


def frames_in_a_file(folder):
    change(slices(folder)[3], NumberOfFrames=4)


def tilted(folder):
    change(slices(folder)[3], ImageOrientationPatient=[1, 0, 0, 0, 0, -1])


def smaller(folder):
    change(slices(folder)[3], Rows=8)


def nowhere(folder):
    change(slices(folder)[3], ImagePositionPatient=None)


def truncated(folder):
    path = folder / slices(folder)[3]
    path.write_bytes(path.read_bytes()[:-100])


def text(folder):
    folder.joinpath(slices(folder)[3]).write_text("no picture")


def malformed(folder):
    path = folder / slices(folder)[3]
    path.write_bytes(path.read_bytes().replace(b"0.95", b"0,95"))


def short(folder):
    change(slices(folder)[3], ImageOrientationPatient=[1, 0, 0])


def no_spacing(folder):
    for path in slices(folder):
        change(path, PixelSpacing=[0, 0])


def tomogram(folder):
    for path in slices(folder):
        change(path, Modality="CT")


def compressed(folder):
    """JPEG Lossless, which pydicom decodes only with plugins."""
    for path in slices(folder):
        dataset = pydicom.dcmread(path)
        dataset.PixelData = pydicom.encaps.encapsulate([bytes([255, 216, 255, 217])])
        dataset["PixelData"].VR = "OB"
        dataset.file_meta.TransferSyntaxUID = JPEGLosslessSV1
        dataset.save_as(path, enforce_file_format=True)


def without_pixels(folder):
    change(slices(folder)[3], PixelData=None)


def deflated(folder):
    dataset = pydicom.dcmread(slices(folder)[3])
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    dataset.save_as(slices(folder)[3], enforce_file_format=True)


@pytest.mark.parametrize(
    ("damage", "message"),
    [(missing, r"a slice is missing between 13\.00 and 21\.00 mm \(.*p: .*\.dcm and .*\.dcm\)"),
     (duplicate, r"two files are the same slice, at 17\.00 mm \(.*p: .*\.dcm and .*\.dcm\)"),
     (mixed, r"several series \(.*p: .*\.dcm and .*\.dcm\)"),
     (frames_in_a_file, "has several frames"), (tilted, "differ in ImageOrientationPatient"),
     (smaller, "differ in Rows"), (nowhere, "has no ImagePositionPatient"),
     (truncated, "cannot be read as DICOM"), (text, "cannot be read as DICOM"),
     (malformed, r"cannot be read as DICOM \(.*\.dcm: .*0,95"), (no_spacing, "has no valid PixelSpacing"),
     (short, "cannot be read as DICOM"), (tomogram, r"modality is CT, not MR \(.*\); pass a series of MR images"),
     (compressed, r"no decoder is installed .*; pip install pylibjpeg"),
     (without_pixels, "cannot be read as DICOM"), (deflated, "deflated DICOM files are not supported")],
)  # fmt: skip
def test_damaged(tmp_path, damage, message):
    damage(write_dicom(tmp_path / "p", IMAGE[..., 1]))
    with pytest.raises(UserError, match=message) as caught:
        read(tmp_path / "p")
    assert "\n" not in str(caught.value) and "Doe" not in str(caught.value)


def test_size_limit(tmp_path):
    folder = write_dicom(tmp_path / "p", IMAGE[..., 1])
    with pytest.raises(UserError, match=r"is larger than 5e-06 GB \(.*p\)"):
        read(folder, max_gigabytes=5e-6)
    for path in folder.iterdir():  # a header with a size larger than the file
        change(path, Rows=60000, Columns=60000)
    with pytest.raises(UserError, match=r"is larger than 4 GB \(.*p: 86\.4 GB in memory\)"):
        read(folder)


def test_files_without_extension(tmp_path):
    folder = write_dicom(tmp_path / "p", IMAGE[..., 1])
    for path in folder.iterdir():
        path.rename(path.with_suffix(""))
    (folder / "Thumbs.db").write_bytes(bytes(200))
    (folder / "DICOMDIR").write_bytes(bytes(128) + b"DICM")
    np.testing.assert_array_equal(read(folder).volume.image[..., 1], IMAGE[..., 1])


def test_headers_with_odd_dates_say_nothing(tmp_path):
    """pydicom quotes a malformed birth date in its warning when it is asked for the value."""
    for channel, name in enumerate(("t1", "flair", "t1ce")):
        write_dicom(tmp_path / "p" / name, IMAGE[..., channel])
    for path in tmp_path.glob("p/*/*.dcm"):
        path.write_bytes(path.read_bytes().replace(BIRTH.encode(), b"19619203"))
    [source] = find_scans(tmp_path / "p")
    source.read().write_mask(MASK, tmp_path)  # warnings are errors here


def test_optional_header_fields(tmp_path):
    folder = write_dicom(tmp_path / "p", IMAGE[..., 1])
    for path in folder.iterdir():
        change(path, StudyDate=None, Modality=None, SliceThickness=None, RescaleSlope=None, RescaleIntercept=None)
    scan = read(folder)
    np.testing.assert_array_equal(scan.volume.image[..., 1], 2 * IMAGE[..., 1].astype(int) + 6)
    assert scan.write_mask(MASK, tmp_path / "out").exists()


def test_the_spacing_of_a_single_slice_is_its_thickness(tmp_path):
    folder = write_dicom(tmp_path / "p", IMAGE[:1, ..., 1])
    assert read(folder).spacing_mm == (3.0, 1.0, 0.95)
    for path in folder.iterdir():
        change(path, SliceThickness=None)
    with pytest.raises(UserError, match="no valid orientation"):
        read(folder)


def test_slices_that_are_shifted_against_each_other(tmp_path):
    """Slice spacing is the distance between positions. Each slice is shifted by 0.2 mm along the rows."""
    folder = write_dicom(tmp_path / "p", IMAGE[..., 1])
    for index, header in enumerate(by_position(folder)):
        x, y, z = header.ImagePositionPatient
        change(header.filename, ImagePositionPatient=[x + 0.2 * index, y, z])
    scan = read(folder)
    assert scan.spacing_mm == pytest.approx((np.hypot(4, 0.2), 1, 0.95), abs=1e-5)
    np.testing.assert_array_equal(scan.volume.image[..., 1], IMAGE[..., 1])
