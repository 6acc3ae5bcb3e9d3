"""BraTS layout: orientation of the volumes, file names of each year, grades from folders and tables, damaged files."""

import gzip
import json
import re
import sys
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest
from conftest import smoke_words
from nibabel import orientations

from configs import default
from lgg_jax import check as check_verb
from lgg_jax.data import dataset
from lgg_jax.data.layouts import brats, cache
from lgg_jax.errors import UserError
from lgg_jax.training.checkpoints import restore_variables

SHAPE = (28, 32, 6)  # x, y, z
LPS = np.array([[-1, 0, 0, 0], [0, -1, 0, 31], [0, 0, 1, 0], [0, 0, 0, 1.0]])  # as BraTS writes it
# Centre of the tumour in voxels of LPS: on the left, in front and above the middle.
LEFT, FRONT, ABOVE = 20, 8, 4
FIRST, SECOND = "BraTS20_Training_001", "BraTS20_Training_002"


def scan(seed: int) -> dict[str, np.ndarray]:
    """Arrays (x, y, z) of all sequences, int16, and of the labels, uint8: a noisy head with an off-centre tumour."""
    rng = np.random.default_rng(seed)
    x, y, z = np.indices(SHAPE)
    head = ((x - 14) / 11) ** 2 + ((y - 15) / 14) ** 2 < 1
    tumour = head & ((x - LEFT) ** 2 + (y - FRONT) ** 2 < 12) & (abs(z - ABOVE) < 2)
    arrays = {
        name: (head * (level + rng.integers(0, 20, SHAPE)) + tumour * bright).astype(np.int16)
        for name, level, bright in (("t1", 300, -90), ("t1ce", 320, 100), ("t2", 200, 150), ("flair", 250, 400))
    }
    return arrays | {"seg": (tumour * np.where(x > LEFT, 4, 2)).astype(np.uint8)}


def write(folder: Path, arrays: dict[str, np.ndarray], affine=LPS, pattern="{patient}_{name}.nii.gz") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in arrays.items():
        nibabel.save(nibabel.Nifti1Image(array, affine), folder / pattern.format(patient=folder.name, name=name))


def turned(array: np.ndarray, codes: str) -> tuple[np.ndarray, np.ndarray]:
    """The LPS array reoriented to the axes `codes`, and the affine that describes the same anatomy."""
    start, end = (orientations.axcodes2ornt(tuple(axes)) for axes in ("LPS", codes))
    transform = orientations.ornt_transform(start, end)
    return orientations.apply_orientation(array, transform), LPS @ orientations.inv_ornt_aff(transform, SHAPE)


@pytest.fixture
def data(tmp_path) -> Path:
    """Two patients in the layout of 2020, with its tables. Tests may damage the files."""
    root = tmp_path / "MICCAI_BraTS2020_TrainingData"
    for seed, name in enumerate((FIRST, SECOND)):
        write(root / name, scan(seed))
    (root / "name_mapping.csv").write_text(
        "Grade,BraTS_2019_subject_ID,BraTS_2020_subject_ID,TCGA_TCIA_subject_ID\n"
        f"HGG,BraTS19_CBICA_AAB_1,{FIRST},NA\nLGG,NA,{SECOND},TCGA-CS-4941\n"
    )
    (root / "survival_info.csv").write_text(
        f"Brats20ID,Age,Survival_days,Extent_of_Resection\n{FIRST},60.463,289,GTR\n"
    )
    return root


def check(root: Path) -> list[str]:
    return [f"{severity}: {line}" for severity, line in check_verb.check(root).findings]


def test_a_volume_has_the_orientation_of_kaggle_3m(data, tmp_path):
    volume = next(dataset.layout(data).load_volumes(data, tmp_path / "cache"))
    arrays = scan(0)
    assert volume.patient == FIRST and volume.image.dtype == np.int16
    assert list(volume.slice_index) == [1, 2, 3, 4, 5, 6]
    assert volume.image.shape == (6, 32, 28, 4)
    for channel, name in enumerate(("t1", "flair", "t1ce", "t2")):
        np.testing.assert_array_equal(volume.image[..., channel], arrays[name].transpose(2, 1, 0))
    np.testing.assert_array_equal(volume.mask, arrays["seg"].transpose(2, 1, 0) > 0)
    place = np.argwhere(volume.mask).mean(axis=0) / volume.mask.shape
    assert place[0] > 0.6 and place[1] < 0.4 and place[2] > 0.6  # late slices, first rows, last columns


@pytest.mark.parametrize("codes", ["RAS", "LAS", "PSR", "SLA", "IRP"])
def test_any_orientation_of_the_file(tmp_path, codes):
    for name, array in scan(0).items():
        write(tmp_path / codes, {name: turned(array, codes)[0]}, turned(array, codes)[1])
    write(tmp_path / "LPS", scan(0))
    here, there = (brats.read_volume(tmp_path / name, {}) for name in (codes, "LPS"))
    np.testing.assert_array_equal(here.image, there.image)
    np.testing.assert_array_equal(here.mask, there.mask)


def test_grades_and_ages_from_the_tables(data):
    table = brats.list_patients(data)
    assert list(table["patient"]) == [FIRST, SECOND] and list(table["grade"]) == [4.0, 2.0]
    assert list(table["folder"]) == [str(data / FIRST), str(data / SECOND)]
    assert brats.read_clinical(data)[FIRST] == {"grade": 4.0, "age": 60.463}
    assert brats.tcga_ids(data) == {SECOND: "TCGA-CS-4941"}


def test_grades_from_the_folders_of_2019(tmp_path):
    root = tmp_path / "MICCAI_BraTS_2019_Data_Training"
    for seed, name in enumerate(("HGG/BraTS19_CBICA_AAB_1", "LGG/BraTS19_2013_0_1")):
        write(root / name, scan(seed))
    (root / "survival_data.csv").write_text("BraTS19ID,Age,Survival,ResectionStatus\nBraTS19_CBICA_AAB_1,51.5,,GTR\n")
    for place in (tmp_path, root):  # the top folder of the archive does not matter
        assert dict(zip(*map(brats.list_patients(place).get, ("patient", "grade")), strict=True)) == {
            "BraTS19_CBICA_AAB_1": 4.0, "BraTS19_2013_0_1": 2.0,
        }  # fmt: skip
    assert brats.read_clinical(root)["BraTS19_CBICA_AAB_1"]["age"] == 51.5
    (high,) = brats.load_volumes(root / "HGG", tmp_path / "cache")
    assert high.clinical["grade"] == 4.0 and high.clinical["age"] is None  # the table is outside the folder
    volumes = {volume.patient: volume.clinical for volume in brats.load_volumes(root, tmp_path / "cache")}
    assert volumes["BraTS19_CBICA_AAB_1"]["grade"] == 4.0 and volumes["BraTS19_2013_0_1"]["age"] is None


def test_the_names_of_2023_and_two_time_points(tmp_path, caplog):
    names = {"t1": "t1n", "t1ce": "t1c", "t2": "t2w", "flair": "t2f", "seg": "seg"}
    arrays = {names[name]: array for name, array in scan(0).items()}
    for name in ("BraTS-GLI-00005-100", "BraTS-GLI-00005-101"):
        write(tmp_path / "data" / name, arrays, pattern="{patient}-{name}.nii.gz")
    first, _ = brats.load_volumes(tmp_path / "data", tmp_path / "cache")
    for channel, name in ((0, "t1n"), (3, "t2w")):
        np.testing.assert_array_equal(first.image[..., channel], arrays[name].transpose(2, 1, 0))
    assert "BraTS-GLI-00005-100 and BraTS-GLI-00005-101 are scans of the same patient" in caplog.text


def test_flair_replaces_a_missing_sequence_with_a_warning(data, tmp_path, caplog):
    (data / SECOND / f"{SECOND}_t1ce.nii.gz").unlink()
    first, second = brats.load_volumes(data, tmp_path / "cache")
    assert f"no t1ce sequence (1 patients of {data}: {SECOND}); FLAIR replaces it" in caplog.text
    np.testing.assert_array_equal(second.image[..., 2], second.image[..., 1])
    assert (first.image[..., 2] != first.image[..., 1]).any()


def test_all_volumes_have_t2_or_none(data, tmp_path, caplog):
    before = cache.fingerprint(brats.Brats, data)
    file(data, "t2").unlink()
    assert cache.fingerprint(brats.Brats, data) != before
    first, second = brats.load_volumes(data, tmp_path / "cache")
    np.testing.assert_array_equal(first.image[..., 3], first.image[..., 1])
    assert (second.image[..., 3] != second.image[..., 1]).any()
    assert f"no t2 sequence (1 patients of {data}: {FIRST}); FLAIR replaces it" in caplog.text
    assert any(f"FLAIR replaces the missing T2 ({data / FIRST});" in line for line in check(data))
    (data / SECOND / f"{SECOND}_t2.nii.gz").unlink()
    caplog.clear()
    volumes = list(brats.load_volumes(data, tmp_path / "cache"))
    assert {volume.image.shape[-1] for volume in volumes} == {3} and "t2" not in caplog.text
    assert not any("T2" in line for line in check(data))


def test_a_config_with_t2_warns_once_that_the_data_has_none(tiny, caplog):
    config = default.get_config().data
    config.dir, config.channels = str(tiny), ("flair", "t2")
    assert len(list(dataset.load_volumes(config))) == len(list(dataset.load_volumes(config))) == 2
    (line,) = (record.getMessage() for record in caplog.records)
    assert line == f"no t2 sequence, but config.data.channels names it ({tiny}); FLAIR replaces it"


def test_without_a_mask(data, tmp_path):
    (data / SECOND / f"{SECOND}_seg.nii.gz").unlink()
    first, second = brats.load_volumes(data, tmp_path / "cache")
    assert first.mask.any() and second.mask is None


def test_fractions_are_scaled_to_int16(tmp_path):
    arrays = scan(0)
    arrays["flair"] = arrays["flair"] / np.float32(650) - np.float32(0.3)
    write(tmp_path / "p", arrays)
    image, expected = brats.read_volume(tmp_path / "p", {}).image[..., 1], arrays["flair"].transpose(2, 1, 0)
    assert image.dtype == np.int16
    np.testing.assert_allclose(np.interp(image, [0, 2**15 - 1], [expected.min(), expected.max()]), expected, atol=1e-4)


def file(root: Path, name: str) -> Path:
    return root / FIRST / f"{FIRST}_{name}.nii.gz"


def rewrite(root: Path, name: str, change, affine=LPS) -> None:
    nibabel.save(nibabel.Nifti1Image(change(scan(0)[name]), affine), file(root, name))


def half(path: Path) -> bytes:
    """A complete gzip file with a truncated NIfTI file in it."""
    return gzip.compress(gzip.decompress(path.read_bytes())[:600])


def table(root: Path, name: str, text: str) -> None:
    (root / name).write_text(text)


def retype(root, name, code):
    """Write this datatype code into the header."""
    content = gzip.decompress(file(root, name).read_bytes())
    file(root, name).write_bytes(gzip.compress(content[:70] + code.to_bytes(2, "little") + content[72:]))


GRADE_IV = f"Grade,BraTS_2020_subject_ID\nIV,{FIRST}\n"
OLD = f"Brats20ID,Age\n{FIRST},old\n"
SHIFTED = LPS + np.eye(4, k=3) * 5
DAMAGED = {
    "truncated": (lambda root: file(root, "t1").write_bytes(file(root, "t1").read_bytes()[:500]), "_t1.nii.gz cannot"),
    "not gzip": (lambda root: file(root, "seg").write_bytes(b"text"), "_seg.nii.gz cannot be read as NIfTI"),
    "cut in gzip": (lambda root: file(root, "t1").write_bytes(half(file(root, "t1"))), "_t1.nii.gz cannot be read"),
    "unknown datatype": (lambda root: retype(root, "flair", 999), "_flair.nii.gz cannot be read as NIfTI"),
    "two dimensions": (lambda root: rewrite(root, "flair", lambda array: array[..., 0]), r"has shape \(28, 32\)"),
    "NaN": (lambda root: rewrite(root, "t1", lambda array: array * np.float32(np.nan)), "not finite numbers"),
    "another shape": (lambda root: rewrite(root, "seg", lambda array: array[:-1]), r"_seg.* and .* differ in shape"),
    "another affine": (lambda root: rewrite(root, "t1ce", np.copy, SHIFTED), r"_t1ce.* and .* differ in affine"),
    "two T1": (lambda root: write(root / FIRST, {"t1": scan(0)["t1"]}, pattern="my_{name}.nii"), "two files for t1"),
    "grade": (lambda root: table(root, "name_mapping.csv", GRADE_IV), "row 2: Grade is 'IV', not HGG or LGG"),
    "age": (lambda root: table(root, "survival_info.csv", OLD), "row 2: Age is 'old', not a number"),
    "no table": (lambda root: table(root, "name_mapping.csv", '"'), "name_mapping.csv cannot be read as a table"),
    "two folders": (lambda root: write(root / "again" / FIRST, scan(5)), f"patient {FIRST} has 2 folders"),
}


@pytest.mark.parametrize("defect", DAMAGED)
def test_the_message_names_the_damaged_file(data, tmp_path, defect):
    damage, message = DAMAGED[defect]
    damage(data)
    with pytest.raises(UserError, match=message) as caught:
        list(brats.load_volumes(data, tmp_path / "cache"))
    assert "\n" not in str(caught.value)
    errors = [line for line in check(data) if line.startswith("error")]
    assert errors and re.search(message, errors[0])


def test_a_header_with_a_shape_larger_than_the_memory(data):
    header = nibabel.Nifti1Header()
    header.set_data_shape((30000, 30000, 30000))
    header.set_data_dtype(np.int16)
    file(data, "flair").write_bytes(gzip.compress(header.binaryblock + bytes(1000)))
    with pytest.raises(UserError, match=r"\(30000, 30000, 30000\); provide a 3-D scan of at most"):
        brats.read_scan(file(data, "flair"))


def test_nibabel_is_not_installed(data, monkeypatch):
    monkeypatch.setitem(sys.modules, "nibabel", None)
    for use in (check_verb.check, lambda root: next(brats.load_volumes(root, root / "cache"))):
        with pytest.raises(UserError, match=r"not installed; pip install 'lgg-jax\[nifti\]'"):
            use(data)


def test_check(data):
    (line,) = check(data)
    assert line.startswith("odd: 1 patients are from TCGA and may also be in kaggle_3m: BraTS20_Training_002 (TCGA-CS")
    file(data, "t1").unlink()
    file(data, "seg").unlink()
    rewrite(data, "t1ce", np.copy)
    with open(data / "name_mapping.csv", "a") as mapping:
        mapping.write("HGG,NA,BraTS20_Training_003,NA\n")
    (data / "survival_info.csv").unlink()
    write(data / "other", {"t1": scan(0)["t1"]})
    nibabel.save(nibabel.Nifti1Image(scan(1)["seg"] * 3, LPS), data / SECOND / f"{SECOND}_seg.nii.gz")
    lines = check(data)
    for expected in (
        "odd: .*other has scans but no FLAIR",
        "odd: 1 table rows have no patient folder: .*name_mapping.csv row 4 .BraTS20_Training_003",
        f"odd: FLAIR replaces the missing T1 .*{FIRST}.;",
        f"error: no …_seg file for {FIRST}",
        "error: .*_seg.nii.gz contains the values 0, 6, 12",
    ):
        assert pd.Series(lines).str.match(expected).sum() == 1, expected


def test_train_and_evaluate(tmp_path, lgg, small_phantoms):
    """Train on FLAIR and T2. predict gives the same mask as evaluate, and a data set without T2 can be evaluated."""
    for seed in range(8):
        write(tmp_path / "data" / ("HGG" if seed % 2 else "LGG") / f"BraTS19_X_{seed}_1", scan(seed))
    words = smoke_words(tmp_path / "data", tmp_path / "run", train__num_steps=10, data__channels=("flair", "t2"))
    for command in (words, ["evaluate", f"--workdir={tmp_path}/run"]):
        done = lgg(*command)
        assert done.code == 0, done.err
    kernel = restore_variables(tmp_path / "run")[0]["params"]["encoder0"]["conv0"]["kernel"]
    assert kernel.shape[2] == 2
    metrics = json.loads((tmp_path / "run/eval/test/metrics.json").read_text())
    cases = pd.read_csv(tmp_path / "run/eval/test/cases.csv")
    assert metrics["volume_dice"]["n"] == len(cases) == 2
    assert set(cases["grade"]) <= {2, 4} and (cases["tumour_pixels"] > 0).all() and (cases["slices"] == 6).all()
    done = lgg("evaluate", f"--workdir={tmp_path}/run", f"--data_dir={small_phantoms}", "--split=all", "--name=other")
    assert done.code == 0 and len(pd.read_csv(tmp_path / "run/eval/other/cases.csv")) == 12, done.err
    patient = cases["patient"][0]
    scan_folder = next((tmp_path / "data").glob(f"*/{patient}"))
    done = lgg("predict", f"--workdir={tmp_path}/run", f"--input={scan_folder}", f"--output={tmp_path}/out")
    assert (done.code, done.err) == (0, "")
    assert pd.read_csv(tmp_path / "out/predictions.csv")["tumour_pixels"][0] == cases["predicted_pixels"][0]
    (scan_folder / f"{patient}_t2.nii.gz").unlink()
    done = lgg("predict", f"--workdir={tmp_path}/run", f"--input={scan_folder}", f"--output={tmp_path}/out")
    (line,) = done.err.splitlines()
    assert line == f"lgg_jax: warning: no T2 sequence ({patient}); FLAIR replaces it, as in training"
