"""NIfTI files: orientation, names of sequences, number types, privacy of the outputs."""

import gzip

import nibabel
import numpy as np
import pytest
from scan_files import (
    BIRTH,
    IMAGE,
    MASK,
    NAME,
    PROBABILITY,
    SPACING,
    orient,
    read,
    save_nifti,
    write_brats,
    write_nifti,
    write_tiff,
)

from lgg_jax.scans import find_scans

ORIENTATIONS = ("LPS", "RAS", "ASL", "PIR", "SPL", "IRA", "LSA", "RPI")
PRE, FLAIR, POST = "pre-contrast", "FLAIR", "post-contrast"


def warnings_of(path):
    with pytest.warns(UserWarning) as caught:
        find_scans(path)[0].read()
    return " ".join(str(warning.message) for warning in caught)


@pytest.mark.parametrize("codes", ORIENTATIONS)
def test_any_orientation_is_read_and_written_exactly(tmp_path, codes):
    scan = read(write_brats(tmp_path / "BraTS20_Training_001", codes))
    np.testing.assert_array_equal(scan.volume.image, IMAGE)
    assert scan.volume.image.dtype == np.uint8
    assert scan.volume.patient == "BraTS20_Training_001"
    assert scan.spacing_mm == SPACING
    source = nibabel.load(tmp_path / "BraTS20_Training_001/BraTS20_Training_001_flair.nii.gz")
    mask = nibabel.load(scan.write_mask(MASK, tmp_path / "out"))
    probability = nibabel.load(scan.write_probability(PROBABILITY, tmp_path / "out"))
    for written, values in ((mask, MASK), (probability, PROBABILITY)):
        np.testing.assert_array_equal(np.asanyarray(written.dataobj), orient(values, codes)[0])
        np.testing.assert_array_equal(written.affine, source.affine)
        assert nibabel.aff2axcodes(written.affine) == tuple(codes)
        assert written.header["sform_code"] == source.header["sform_code"]
        assert written.header["qform_code"] == source.header["qform_code"]
    assert mask.get_data_dtype() == np.uint8 and probability.get_data_dtype() == np.float32
    assert mask.get_filename().endswith("BraTS20_Training_001_mask.nii.gz")


def test_an_oblique_scan_is_reoriented_to_the_closest_axes(tmp_path):
    array, affine = orient(IMAGE[..., 1], "PIR")
    angle = np.radians(20)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    affine[:3, :3] = turn @ affine[:3, :3]
    scan = read(save_nifti(tmp_path / "flair.nii", array, affine))
    np.testing.assert_array_equal(scan.volume.image[..., 1], IMAGE[..., 1])
    np.testing.assert_allclose(scan.spacing_mm, SPACING, atol=1e-5)
    np.testing.assert_allclose(nibabel.load(scan.write_mask(MASK, tmp_path)).affine, affine, atol=1e-5)


@pytest.mark.parametrize(
    "names", [("_t1", "_flair", "_t1gd"), ("-t1n", "-t2f", "-t1c"), ("_T1", "_FLAIR", "_T1CE")],
)  # fmt: skip
def test_names_of_sequences(tmp_path, names):
    folder = write_brats(tmp_path / "BraTS-GLI-00001-000", names=names)
    write_nifti(folder / f"{folder.name}_seg.nii.gz", IMAGE[..., 0])
    scan = read(folder)
    np.testing.assert_array_equal(scan.volume.image, IMAGE)
    assert scan.volume.patient == folder.name
    assert scan.sources[POST] == f"{folder.name}{names[2]}.nii.gz" and scan.missing == ()


@pytest.mark.parametrize("name", ["_t2", "-t2w"])
def test_t2_is_read_if_it_has_the_grid_of_flair(tmp_path, name):
    folder = write_brats(tmp_path / "p")
    t2 = write_nifti(folder / f"p{name}.nii.gz", IMAGE[::-1, ..., 0])
    scan = read(folder)
    np.testing.assert_array_equal(scan.volume.image, np.concatenate([IMAGE, IMAGE[::-1, ..., :1]], axis=-1))
    assert scan.sources["T2"] == t2.name and scan.missing == ()
    write_nifti(t2, IMAGE[1:, ..., 0])
    assert "T2 is skipped" in warnings_of(folder)
    np.testing.assert_array_equal(read(folder).volume.image, IMAGE)


def test_the_patient_of_a_file_without_prefix_is_the_folder(tmp_path):
    for channel, name in enumerate(("t1", "flair", "t1ce")):
        write_nifti(tmp_path / "case 7" / f"{name}.nii", IMAGE[..., channel])
    assert read(tmp_path / "case 7").volume.patient == "case 7"


def test_patients_in_one_folder_and_in_subfolders(tmp_path):
    write_brats(tmp_path / "flat", names=("_1_t1", "_1_flair", "_1_t1ce"))
    write_brats(tmp_path / "flat", names=("_2_t1", "_2_flair", "_2_t1ce"))
    write_nifti(tmp_path / "flat" / "brainmask.nii", IMAGE[..., 0])
    write_brats(tmp_path / "HGG" / "p")
    write_nifti(tmp_path / "decathlon" / "BRATS_001.nii.gz", IMAGE[..., 1])
    write_nifti(tmp_path / "decathlon" / "BRATS_002.nii.gz", IMAGE[..., 1])
    (tmp_path / "decathlon" / "._BRATS_001.nii.gz").write_bytes(b"left by macOS")
    with pytest.warns(UserWarning, match=r"its name does not end in a sequence \(.*brainmask\.nii\)"):
        sources = find_scans(tmp_path)
    assert [source.patient for source in sources] == ["p", "BRATS_001", "BRATS_002", "flat_1", "flat_2"]


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2, 2)])
def test_four_dimensions(tmp_path, order):
    """Three channels are T1, FLAIR, T1 with contrast. Four channels are FLAIR, T1, T1 with contrast, T2."""
    planes = [orient(IMAGE[..., channel], "RAS") for channel in order]
    array, affine = np.stack([plane for plane, _ in planes], axis=-1), planes[0][1]
    scan = read(save_nifti(tmp_path / "BRATS_001.nii.gz", array, affine))
    np.testing.assert_array_equal(scan.volume.image, IMAGE[..., [0, 1, 2, *order[3:]]])
    assert scan.sources[FLAIR] == f"BRATS_001.nii.gz, channel {order.index(1)}"
    written = nibabel.load(scan.write_mask(MASK, tmp_path / "out"))
    np.testing.assert_array_equal(np.asanyarray(written.dataobj), orient(MASK, "RAS")[0])
    np.testing.assert_array_equal(written.affine, nibabel.load(tmp_path / "BRATS_001.nii.gz").affine)


def test_flair_replaces_missing_sequences_with_a_warning(tmp_path):
    path = write_nifti(tmp_path / "p_flair.nii", IMAGE[..., 1])
    with pytest.warns(UserWarning) as caught:
        scan = find_scans(path)[0].read()
    assert [str(warning.message).split(";")[0] for warning in caught] == [
        f"no {name} sequence ({path})" for name in (PRE, POST)
    ]
    assert scan.missing == (PRE, POST) and scan.volume.patient == "p"
    np.testing.assert_array_equal(scan.volume.image, IMAGE[..., [1, 1, 1]])


@pytest.mark.parametrize(
    ("dtype", "factor", "expected"),
    [(np.int16, 20, np.int16), (np.uint16, 300, np.float32), (np.float64, 1, np.uint8), (np.float32, 0.5, np.float32)],
)
def test_values_have_the_smallest_type_that_represents_them(tmp_path, dtype, factor, expected):
    array = (orient(IMAGE[..., 1], "LPS")[0] * np.float64(factor)).astype(dtype)
    image = read(save_nifti(tmp_path / "flair.nii", array)).volume.image
    assert image.dtype == expected
    np.testing.assert_array_equal(image[..., 0], IMAGE[..., 1] * np.float64(factor))


def test_slope_intercept_units_and_nifti_2(tmp_path):
    array, affine = orient(IMAGE[..., 1], "LPS")
    image = nibabel.Nifti2Image(2 * array.astype(np.int16) + 6, affine / 1000)
    image.header.set_xyzt_units("meter")
    image.header.set_slope_inter(0.5, -3)
    nibabel.save(image, tmp_path / "flair.nii.gz")
    scan = read(tmp_path / "flair.nii.gz")
    np.testing.assert_array_equal(scan.volume.image[..., 1], IMAGE[..., 1])
    np.testing.assert_allclose(scan.spacing_mm, SPACING, rtol=1e-5)
    written = nibabel.load(scan.write_mask(MASK, tmp_path / "out"))
    assert isinstance(written, nibabel.Nifti2Image) and written.header.get_slope_inter() in ((None, None), (1, 0))
    np.testing.assert_array_equal(written.get_fdata(), orient(MASK, "LPS")[0])


def test_warnings_of_anisotropic_pixels_and_missing_orientation(tmp_path):
    save_nifti(tmp_path / "flair.nii", orient(IMAGE[..., 1], "LPS")[0], np.diag([-1, -5, 1, 1]))
    assert "axial pixels are 5×1 mm" in warnings_of(tmp_path / "flair.nii")
    image = nibabel.Nifti1Image(IMAGE[..., 1], None)
    nibabel.save(image, tmp_path / "flair.nii")
    assert "header has no orientation" in warnings_of(tmp_path / "flair.nii")


def test_outputs_do_not_contain_names_from_the_header(tmp_path):
    array, affine = orient(IMAGE[..., 1], "LPS")
    image = nibabel.Nifti1Image(array, affine)
    image.header["descrip"] = image.header["db_name"] = image.header["aux_file"] = f"{NAME} {BIRTH}"[:17]
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", f"{NAME} {BIRTH}".encode()))
    nibabel.save(image, tmp_path / "flair.nii")
    assert NAME.encode() in (tmp_path / "flair.nii").read_bytes()
    scan = read(tmp_path / "flair.nii")
    for path in (scan.write_mask(MASK, tmp_path), scan.write_probability(PROBABILITY, tmp_path)):
        assert b"Doe" not in gzip.decompress(path.read_bytes())


def test_same_image_from_nifti_and_tiff(tmp_path):
    tiff, nifti = read(write_tiff(tmp_path / "tiff")), read(write_brats(tmp_path / "nifti"))
    assert tiff.volume.image.dtype == nifti.volume.image.dtype
    np.testing.assert_array_equal(tiff.volume.image, nifti.volume.image)
    np.testing.assert_array_equal(tiff.volume.slice_index, nifti.volume.slice_index)
