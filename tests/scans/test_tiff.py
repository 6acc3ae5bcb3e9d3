"""TIFF folders, and the search for scans of all formats."""

import shutil
import sys
import warnings

import numpy as np
import pytest
from PIL import Image
from scan_files import IMAGE, MASK, PROBABILITY, write_dicom, write_nifti, write_tiff

from lgg_jax.data.layouts import kaggle
from lgg_jax.errors import UserError
from lgg_jax.scans import find_scans

FOLDER = "TCGA_CS_0001_19990101"


def read(path):
    with Image.open(path) as image:
        return np.asarray(image)


@pytest.fixture
def folder(tmp_path):
    return write_tiff(tmp_path / "data" / FOLDER)


@pytest.mark.parametrize("masks", [False, True])
def test_one_patient(tmp_path, masks):
    folder = write_tiff(tmp_path / "data" / FOLDER, masks=masks)
    (folder.parent / "data.csv").write_text("Patient,age_at_initial_pathologic\nTCGA_CS_0001,40\n")
    [source] = find_scans(folder)
    scan = source.read()
    assert source.patient == scan.volume.patient == "TCGA_CS_0001"
    assert source.path == folder
    assert scan.volume.image.dtype == np.uint8
    np.testing.assert_array_equal(scan.volume.image, IMAGE)
    assert list(scan.volume.slice_index) == [1, 2, 3, 4, 5, 6]
    assert scan.volume.mask is None and scan.spacing_mm is None and scan.missing == ()
    assert scan.volume.clinical["age"] == 40


def test_slices_in_numeric_order(tmp_path):
    write_tiff(tmp_path / "p", np.concatenate([IMAGE, IMAGE[::-1]]))
    np.testing.assert_array_equal(find_scans(tmp_path / "p")[0].read().volume.image[9], IMAGE[2])


def test_a_written_mask_can_be_read_as_kaggle_3m_mask(folder, tmp_path):
    written = find_scans(folder)[0].read().write_mask(MASK, tmp_path / "out" / FOLDER)
    assert sorted(path.name for path in written.iterdir()) == [f"{FOLDER}_{i}_mask.tif" for i in range(1, 7)]
    assert set(np.unique(read(written / f"{FOLDER}_2_mask.tif"))) == {0, 255}
    for path in folder.iterdir():
        shutil.copy(path, written)
    volume = kaggle.read_volume(written, {})
    np.testing.assert_array_equal(volume.mask, MASK)


def test_probability(folder, tmp_path):
    written = find_scans(folder)[0].read().write_probability(PROBABILITY, tmp_path / "out")
    planes = [read(written / f"{FOLDER}_{number}_probability.tif") for number in range(1, 7)]
    np.testing.assert_array_equal(np.stack(planes), PROBABILITY)


def test_a_channel_that_equals_flair_counts_as_missing(tmp_path):
    image = IMAGE.copy()
    image[..., 2] = image[..., 1]
    [source] = find_scans(write_tiff(tmp_path / "p", image))
    with pytest.warns(UserWarning, match=r"no post-contrast sequence \(.*p\)"):
        scan = source.read()
    assert scan.missing == ("post-contrast",)
    np.testing.assert_array_equal(scan.volume.image, image)


def damage_size(folder):
    Image.fromarray(IMAGE[0, :8]).save(folder / f"{FOLDER}_3.tif")


def damage_colour(folder):
    Image.fromarray(IMAGE[0, ..., 0]).save(folder / f"{FOLDER}_3.tif")


def damage_bytes(folder):
    (folder / f"{FOLDER}_3.tif").write_bytes(b"not a picture")


def damage_name(folder):
    (folder / f"{FOLDER}_3.tif").rename(folder / "third.tif")


@pytest.mark.parametrize(
    ("damage", "message"),
    [(damage_size, r"shape \(8, 14, 3\).*_3\.tif"), (damage_colour, r"uint8 of shape \(12, 14\) \(.*_3\.tif"),
     (damage_bytes, r"_3\.tif cannot be read"), (damage_name, r"third\.tif has no slice number")],
)  # fmt: skip
def test_damaged(folder, damage, message):
    damage(folder)
    with pytest.raises(UserError, match=message):
        find_scans(folder)[0].read()


def test_size_limit(folder):
    assert find_scans(folder, IMAGE.nbytes / 1e9)[0].read()
    with pytest.raises(UserError, match=r"larger than 2e-06 GB"):
        find_scans(folder, 2e-6)[0].read()


def test_a_damaged_scan_does_not_prevent_reading_the_others(tmp_path):
    write_tiff(tmp_path / "a")
    damage_bytes(write_tiff(tmp_path / "b" / FOLDER))
    write_nifti(tmp_path / "c" / "flair.nii", IMAGE[..., 1])
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "notes.txt").write_text("nothing")
    write_dicom(tmp_path / "e", IMAGE[..., 1])
    (tmp_path / "table.csv").write_text("ignored")
    (tmp_path / ".hidden").mkdir()
    sources = find_scans(tmp_path)
    assert {source.path.relative_to(tmp_path).parts[0] for source in sources} == set("abcde")
    read, failed = [], {}
    for source in sources:
        try:
            with warnings.catch_warnings(action="ignore"):  # missing sequences
                read.append(source.read().volume.patient)
        except UserError as error:
            failed[source.patient] = str(error)
    assert len(read) == 3 and {"a", "c"} < set(read)
    assert set(failed) == {"TCGA_CS_0001", "d"}
    assert "contains no scan" in failed["d"] and "\n" not in "".join(failed.values())


def test_patient_names_are_unique(tmp_path):
    for group in ("x", "y", "z"):
        write_tiff(tmp_path / group / FOLDER)
    write_tiff(tmp_path / "w" / "tcga_cs_0001-2")
    assert [source.patient for source in find_scans(tmp_path)] == [
        "tcga_cs_0001-2", "TCGA_CS_0001", "TCGA_CS_0001-3", "TCGA_CS_0001-4",
    ]  # fmt: skip


def test_patient_names_of_relative_folders(folder, monkeypatch):
    monkeypatch.chdir(folder)
    assert find_scans(".")[0].patient == "TCGA_CS_0001"
    (folder / "inner").mkdir()
    monkeypatch.chdir(folder / "inner")
    assert find_scans("..")[0].patient == "TCGA_CS_0001"


def test_a_folder_without_read_permission(folder, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    source = find_scans(folder)[0]
    monkeypatch.setattr("lgg_jax.scans.tiff.kaggle.slice_files", refuse)
    with pytest.raises(UserError, match=rf"cannot be read \(.*{FOLDER}: Permission denied\)"):
        source.read()
    monkeypatch.setattr("lgg_jax.scans.tiff.is_patient", refuse)
    with pytest.raises(UserError, match=rf"cannot be read \(.*{FOLDER}: Permission denied\)"):
        find_scans(folder)


def test_paths_without_a_scan(tmp_path):
    with pytest.raises(UserError, match="no such file or folder"):
        find_scans(tmp_path / "nowhere")
    (tmp_path / "report.pdf").write_text("%PDF")
    with pytest.raises(UserError, match=r"not supported \(.*report\.pdf\)"):
        find_scans(tmp_path / "report.pdf")
    with pytest.raises(UserError, match="contains no scan"):
        find_scans(tmp_path)[0].read()


@pytest.mark.parametrize(
    ("library", "extra"), [("nibabel", "nifti"), ("pydicom", "dicom"), ("highdicom", "dicom")],
)  # fmt: skip
def test_libraries_that_are_not_installed(tmp_path, monkeypatch, library, extra):
    write_nifti(tmp_path / "nifti" / "flair.nii", IMAGE[..., 1])
    write_dicom(tmp_path / "dicom", IMAGE[..., 1])
    for name in ("nifti", "dicom", "series", "dicom_seg"):
        monkeypatch.delitem(sys.modules, f"lgg_jax.scans.{name}", raising=False)
        monkeypatch.delattr(f"lgg_jax.scans.{name}", raising=False)
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(UserError, match=rf"{library} is not installed; pip install 'lgg-jax\[{extra}\]'"):
        find_scans(tmp_path / extra)
