"""NIfTI files that are damaged, inconsistent or too large."""

import gzip

import nibabel
import numpy as np
import pytest
from scan_files import IMAGE, orient, read, save_nifti, write_brats, write_nifti

from lgg_jax.errors import UserError


def nan(path):
    array = orient(IMAGE[..., 1], "LPS")[0].astype(np.float32)
    array[3, 4, 5] = np.nan
    save_nifti(path, array)


def two_dimensions(path):
    save_nifti(path, np.ones((8, 8), np.uint8))


def two_channels(path):
    save_nifti(path, np.ones((8, 8, 4, 2), np.uint8))


def complex_numbers(path):
    save_nifti(path, np.ones((8, 8, 4), np.complex64))


def singular(path):
    header = nibabel.load(save_nifti(path, IMAGE[..., 1])).header
    header.set_sform(np.diag([1, 1, 0, 1]), code=1)
    header["vox_offset"] = 352
    path.write_bytes(header.binaryblock + path.read_bytes()[348:])


def truncated(path):
    save_nifti(path, IMAGE[..., 1])
    path.write_bytes(path.read_bytes()[:-1])


def truncated_gzip(path):
    write_nifti(path.parent / "whole.nii.gz", IMAGE[..., 1])
    path.write_bytes((path.parent / "whole.nii.gz").read_bytes()[:-40])
    (path.parent / "whole.nii.gz").unlink()


def invalid_quaternion(path):
    change_header(path, qform_code=1, sform_code=0, quatern_b=2.0)


def unknown_unit(path):
    change_header(path, xyzt_units=4)


def change_header(path, **fields):
    header = nibabel.load(save_nifti(path, IMAGE[..., 1])).header.copy()
    header["vox_offset"] = 352
    for name, value in fields.items():
        header[name] = value
    path.write_bytes(header.binaryblock + path.read_bytes()[348:])


def text(path):
    path.write_text("no volume" * 100)


def empty(path):
    path.touch()


@pytest.mark.parametrize(
    ("damage", "message"),
    [(nan, "NaN or infinite values: 1"), (two_dimensions, "shape 8×8 is not a 3-D"), (two_channels, "has 2 channels"),
     (complex_numbers, "are of type complex64"), (singular, "no valid orientation"),
     (truncated, r"cannot be read as NIfTI \(.*: truncated\)"), (truncated_gzip, "cannot be read as NIfTI"),
     (invalid_quaternion, r"cannot be read as NIfTI \(.*: w2 should be positive"),
     (unknown_unit, "cannot be read as NIfTI"), (text, "file is not NIfTI"), (empty, "file is not NIfTI")],
)  # fmt: skip
def test_damaged(tmp_path, damage, message):
    damage(tmp_path / "p_flair.nii")
    with pytest.raises(UserError, match=message) as caught:
        read(tmp_path)
    assert "p_flair.nii" in str(caught.value) and "\n" not in str(caught.value)


def test_sequences_must_have_the_same_grid(tmp_path):
    folder = write_brats(tmp_path / "p")
    write_nifti(folder / "p_t1.nii.gz", IMAGE[:5, ..., 0])
    with pytest.raises(UserError, match=r"differ in shape \(.*p_t1\.nii\.gz and .*p_flair\.nii\.gz\)"):
        read(folder)
    write_nifti(folder / "p_t1.nii.gz", IMAGE[..., 0], "RPS")
    with pytest.raises(UserError, match=r"differ in affine \(.*p_t1\.nii\.gz and .*p_flair\.nii\.gz\)"):
        read(folder)


def test_no_flair_file_and_two_flair_files(tmp_path):
    folder = write_brats(tmp_path / "p", names=("_t1", "_t2", "_t1ce"))
    with pytest.raises(UserError, match=r"no FLAIR file \(.*p: p_t1\.nii\.gz, p_t1ce\.nii\.gz, p_t2\.nii\.gz\)"):
        read(folder)
    write_brats(folder, names=("_t1", "_flair", "-t2f"))
    with pytest.raises(UserError, match="two FLAIR files"):
        read(folder)


def test_a_gzip_bomb_is_not_unpacked(tmp_path, monkeypatch):
    """First, a header with a size of 1 TB. Second, a small volume followed by 16 MB of zeros."""
    image = nibabel.Nifti1Image(np.ones((8, 8, 4), np.uint8), np.diag([-1, -1, 1, 1]))
    honest = image.to_bytes()
    image.header.set_data_shape((10000, 10000, 10000))
    path = tmp_path / "flair.nii.gz"
    path.write_bytes(gzip.compress(image.header.binaryblock + bytes(1 << 20)))
    with pytest.raises(UserError, match=r"is larger than 4 GB \(.*: 4e\+03 GB in memory\)"):
        read(path)
    path.write_bytes(gzip.compress(honest + bytes(1 << 24), 1))
    taken = []
    unpack = gzip.GzipFile.read
    monkeypatch.setattr(gzip.GzipFile, "read", lambda file, size: taken.append(size) or unpack(file, size))
    assert read(path).volume.image.shape == (4, 8, 8, 3)
    assert sum(taken) <= len(honest) + 540


def test_size_limit_is_configurable(tmp_path):
    path = write_nifti(tmp_path / "flair.nii.gz", IMAGE[..., 1])
    with pytest.raises(UserError, match="is larger than 1e-06 GB"):
        read(path, max_gigabytes=1e-6)
    assert read(path, max_gigabytes=1e-5)
