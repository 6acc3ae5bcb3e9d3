"""DICOM series: orientation, sequences of a patient, segmentation objects, privacy of the outputs."""

import re

import highdicom
import numpy as np
import pydicom
import pytest
from scan_files import (
    BIRTH,
    HOSPITAL_ID,
    IMAGE,
    MASK,
    PROBABILITY,
    SPACING,
    by_position,
    orient,
    read,
    write_dicom,
    write_nifti,
    write_tiff,
)

from lgg_jax.errors import UserError
from lgg_jax.scans import dicom, find_scans

PRE, FLAIR, POST = "pre-contrast", "FLAIR", "post-contrast"
# Directions of slices, rows and columns: axial, axial from superior, sagittal, coronal, axial in prone position.
ORIENTATIONS = ("SPL", "IPL", "LIP", "RIP", "PIL", "SAR")


def write_patient(folder, codes="SPL", names=("t1", "flair", "t1ce")):
    for channel, name in enumerate(names):
        write_dicom(folder / name, IMAGE[..., channel], codes)
    return folder


def frames(path, folder):
    """The frames of a segmentation in the order of the slices that they reference: (slice, row, column)."""
    segmentation = highdicom.seg.segread(path)
    uids = [header.SOPInstanceUID for header in by_position(folder)]
    return segmentation.get_pixels_by_source_instance(uids, rescale_fractional=True)[..., 0]


@pytest.mark.parametrize("codes", ORIENTATIONS)
def test_any_orientation_is_read_and_written_exactly(tmp_path, codes):
    folder = write_dicom(tmp_path / "flair", IMAGE[..., 1], codes)
    scan = read(folder)
    np.testing.assert_array_equal(scan.volume.image[..., 1], IMAGE[..., 1])
    np.testing.assert_allclose(scan.spacing_mm, SPACING, atol=1e-5)
    written = frames(scan.write_mask(MASK, tmp_path / "out"), folder)
    expected, affine = orient(MASK, codes)
    first = np.diag([-1, -1, 1]) @ affine[:3, 3]  # position of the first slice of the array
    flipped = not np.allclose(first, by_position(folder)[0].ImagePositionPatient)
    np.testing.assert_array_equal(written, expected[::-1] if flipped else expected)


def test_three_series_of_a_patient(tmp_path):
    scan = read(write_patient(tmp_path / "p"))
    np.testing.assert_array_equal(scan.volume.image, IMAGE)
    assert scan.volume.image.dtype == np.uint8
    assert list(scan.volume.slice_index) == [1, 2, 3, 4, 5, 6] and scan.missing == ()
    assert scan.sources == {PRE: "t1/", FLAIR: "flair/", POST: "t1ce/"}


def test_t2_from_a_folder_of_that_name(tmp_path):
    folder = write_patient(tmp_path / "p", names=("t1", "flair", "t1ce"))
    write_dicom(folder / "t2", IMAGE[::-1, ..., 0])
    scan = read(folder)
    np.testing.assert_array_equal(scan.volume.image, np.concatenate([IMAGE, IMAGE[::-1, ..., :1]], axis=-1))
    assert scan.sources["T2"] == "t2/" and scan.missing == ()


def test_t2_on_another_grid_is_skipped(tmp_path):
    folder = write_patient(tmp_path / "p")
    write_dicom(folder / "t2", IMAGE[1:, ..., 0])
    with pytest.warns(UserWarning, match="T2 is skipped"):
        scan = find_scans(folder)[0].read()
    np.testing.assert_array_equal(scan.volume.image, IMAGE)


def test_segmentation_references_its_series(tmp_path):
    scan = read(write_patient(tmp_path / "p"))
    path = scan.write_mask(MASK, tmp_path / "out")
    assert path == tmp_path / "out" / f"{scan.volume.patient}_mask.dcm"
    segmentation, sources = pydicom.dcmread(path), by_position(tmp_path / "p/flair")
    assert segmentation.SOPClassUID == "1.2.840.10008.5.1.4.1.1.66.4" and segmentation.Modality == "SEG"
    assert segmentation.SegmentationType == "BINARY"
    assert segmentation.StudyInstanceUID == sources[0].StudyInstanceUID
    assert segmentation.FrameOfReferenceUID == sources[0].FrameOfReferenceUID
    [series] = segmentation.ReferencedSeriesSequence
    assert series.SeriesInstanceUID == sources[0].SeriesInstanceUID
    uids = [item.ReferencedSOPInstanceUID for item in series.ReferencedInstanceSequence]
    assert set(uids) == {source.SOPInstanceUID for source in sources} and len(uids) == len(MASK)
    assert segmentation.NumberOfFrames == len(MASK)
    positions = {source.SOPInstanceUID: source.ImagePositionPatient for source in sources}
    for frame in segmentation.PerFrameFunctionalGroupsSequence:
        uid = frame.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        assert frame.PlanePositionSequence[0].ImagePositionPatient == positions.pop(uid)
    assert not positions
    [segment] = segmentation.SegmentSequence
    assert segment.SegmentedPropertyTypeCodeSequence[0].CodeMeaning == "Neoplasm"
    assert segment.SegmentAlgorithmType == "AUTOMATIC" and segment.SegmentAlgorithmName == "lgg_jax"


def test_probability_and_empty_mask_are_written_exactly(tmp_path):
    scan = read(write_patient(tmp_path / "p"))
    written = frames(scan.write_probability(PROBABILITY, tmp_path / "out"), tmp_path / "p/flair")
    np.testing.assert_allclose(written, PROBABILITY, atol=0.5 / 255 + 1e-6)
    written = frames(scan.write_mask(np.zeros_like(MASK), tmp_path / "out"), tmp_path / "p/flair")
    assert written.shape == MASK.shape and not written.any()


def test_outputs_do_not_identify_the_patient(tmp_path):
    folder = write_patient(tmp_path / "p")
    scan = read(folder)
    uid = by_position(folder / "flair")[0].SeriesInstanceUID
    assert re.fullmatch(r"series-[0-9a-f]{8}", scan.volume.patient)
    for path in (scan.write_mask(MASK, tmp_path / "out"), scan.write_probability(PROBABILITY, tmp_path / "out")):
        content = path.read_bytes()
        assert uid.encode() in content
        for secret in ("Doe", "Jane", "House", BIRTH, HOSPITAL_ID, "A-99"):
            assert secret.encode() not in content
        written = pydicom.dcmread(path)
        assert written.PatientID == scan.volume.patient
        assert str(written.PatientName) == written.PatientBirthDate == ""
    assert "Doe" not in repr(scan) and BIRTH not in repr(scan)


def test_same_image_in_every_format(tmp_path):
    for channel, name in enumerate(("t1", "flair", "t1ce")):
        write_nifti(tmp_path / "nifti" / f"{name}.nii", IMAGE[..., channel], "RAS")
    volumes = [read(folder).volume for folder in (
        write_tiff(tmp_path / "tiff"), tmp_path / "nifti", write_patient(tmp_path / "dicom", "LIP"),
    )]  # fmt: skip
    for volume in volumes:
        assert volume.image.dtype == np.uint8 and volume.image.flags.c_contiguous
        np.testing.assert_array_equal(volume.image, IMAGE)
        np.testing.assert_array_equal(volume.slice_index, volumes[0].slice_index)


def test_a_single_series_must_be_flair(tmp_path):
    folder = write_dicom(tmp_path / "series 4", IMAGE[..., 1])
    [source] = find_scans(folder)
    with pytest.warns(UserWarning, match=r"no (pre|post)-contrast sequence \(.*series 4\)"):
        scan = source.read()
    assert scan.missing == (PRE, POST)
    np.testing.assert_array_equal(scan.volume.image, IMAGE[..., [1, 1, 1]])
    write_dicom(tmp_path / "other", IMAGE[..., 0], SeriesDescription="AX T1 POST")
    with pytest.raises(UserError, match=r"no FLAIR series \(.*other\)"):
        read(tmp_path / "other")


def test_sequences_from_series_descriptions_in_a_folder_of_patients(tmp_path):
    for number in (1, 2):
        for channel, description in enumerate(("AX T1", "AX T2 FLAIR", "T1 +C")):
            folder = tmp_path / f"p{number}" / "study" / str(channel)
            write_dicom(folder, IMAGE[..., channel], study=f"1.2.{number}", SeriesDescription=description)
        write_dicom(tmp_path / f"p{number}" / "study" / "9", IMAGE[..., 0], "LIP", f"1.2.{number}",
                    SeriesDescription="DWI")  # fmt: skip
    sources = find_scans(tmp_path)
    assert [source.path.parent.name for source in sources] == ["p1", "p2"]
    assert len({source.patient for source in sources}) == 2
    for source in sources:
        np.testing.assert_array_equal(source.read().volume.image, IMAGE)


def test_series_of_different_patients_in_one_folder(tmp_path):
    for name in ("p1", "p2"):
        write_dicom(tmp_path / name, IMAGE[..., 1], study=f"1.2.{name[1]}")
    (tmp_path / "p3").mkdir()
    (tmp_path / "p3" / "1.dcm").write_bytes(b"not DICOM")
    *good, bad = find_scans(tmp_path)
    assert [source.path.name for source in (*good, bad)] == ["p1", "p2", "p3"]
    assert {source.patient[:7] for source in good} == {"series-"} and bad.patient == "p3"
    with pytest.raises(UserError, match=r"cannot be read as DICOM \(.*1\.dcm"):
        bad.read()


@pytest.mark.parametrize(
    ("folder", "description", "agent", "expected"),
    [("flair", "t1", "", FLAIR), ("4", "Ax T2 FLAIR", "Gadavist", FLAIR), ("4", "t2_tirm_tra_dark-fluid", "", FLAIR),
     ("t1", "", "", PRE), ("t1ce", "", "", POST), ("t1_gd", "", "", POST), ("4", "AX T1 FLAIR", "", PRE),
     ("4", "AX T1 FLAIR", "Gadavist", POST), ("4", "AX T1 FLAIR", "NONE", PRE), ("4", "AX T1 PRE GAD", "", PRE),
     ("4", "T1 +C", "", POST), ("4", "MPRAGE post contrast", "", POST), ("4", "SAG MPRAGE", "", PRE),
     ("4", "AX T2", "", "other"), ("4", "ep2d diff", "", "other"), ("4", "3-plane loc", "", "other"),
     ("T1234", "", "", None), ("patient_7", "", "", None)],
)  # fmt: skip
def test_sequence_from_folder_description_and_contrast_agent(folder, description, agent, expected):
    assert dicom.sequence(folder, description, agent) == expected


def test_sequences_must_have_the_same_grid(tmp_path):
    folder = write_patient(tmp_path / "p", names=("t1", "flair"))
    write_dicom(folder / "t1ce", IMAGE[:5, ..., 2])
    with pytest.raises(UserError, match=r"differ in size or position \(.*t1ce and .*flair\)"):
        read(folder)
    folder = write_patient(tmp_path / "q", names=("t1", "flair"))
    write_dicom(folder / "t1ce", IMAGE[..., 2], "SPR")
    with pytest.raises(UserError, match=r"differ in size or position \(.*t1ce and .*flair\)"):
        read(folder)


def test_two_flair_series_are_refused(tmp_path):
    for name in ("3", "4"):
        write_dicom(tmp_path / name, IMAGE[..., 1], SeriesDescription="FLAIR")
    with pytest.raises(UserError, match="two FLAIR series"):
        read(tmp_path)
