"""BraTS phantoms in its own layout and names: no flip, no exchanged axis, grades from folders and tables."""

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
# A position left, in front and above, in voxels of LPS; the tumour lies around it.
LEFT, FRONT, ABOVE = 20, 8, 4
FIRST, SECOND = "BraTS20_Training_001", "BraTS20_Training_002"


def scan(seed: int) -> dict[str, np.ndarray]:
    """Arrays (x, y, z) int16: a head in noise and a tumour in one corner of it; T2 as well, as BraTS has it."""
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
    """The LPS array and its affine as somebody else would store them: the same anatomy, axes along `codes`."""
    start, end = (orientations.axcodes2ornt(tuple(axes)) for axes in ("LPS", codes))
    transform = orientations.ornt_transform(start, end)
    return orientations.apply_orientation(array, transform), LPS @ orientations.inv_ornt_aff(transform, SHAPE)


@pytest.fixture
def data(tmp_path) -> Path:
    """Two patients of 2020 with its tables; to be spoilt at will."""
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


def test_a_volume_lies_as_kaggle_3m_does(data, tmp_path):
    volume = next(dataset.layout(data).load_volumes(data, tmp_path / "cache"))
    arrays = scan(0)
    assert volume.patient == FIRST and volume.image.dtype == np.int16
    assert list(volume.slice_index) == [1, 2, 3, 4, 5, 6]
    assert volume.image.shape == (6, 32, 28, 4)
    for channel, name in enumerate(("t1", "flair", "t1ce", "t2")):
        np.testing.assert_array_equal(volume.image[..., channel], arrays[name].transpose(2, 1, 0))
    np.testing.assert_array_equal(volume.mask, arrays["seg"].transpose(2, 1, 0) > 0)
    place = np.argwhere(volume.mask).mean(axis=0) / volume.mask.shape
    assert place[0] > 0.6 and place[1] < 0.4 and place[2] > 0.6  # above; in front, so high up; left, so on the right


@pytest.mark.parametrize("codes", ["RAS", "LAS", "PSR", "SLA", "IRP"])
def test_however_the_file_lies(tmp_path, codes):
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
    for place in (tmp_path, root):  # the archive's own folder around it makes no difference
        assert dict(zip(*map(brats.list_patients(place).get, ("patient", "grade")), strict=True)) == {
            "BraTS19_CBICA_AAB_1": 4.0, "BraTS19_2013_0_1": 2.0,
        }  # fmt: skip
    assert brats.read_clinical(root)["BraTS19_CBICA_AAB_1"]["age"] == 51.5
    (high,) = brats.load_volumes(root / "HGG", tmp_path / "cache")
    assert high.clinical["grade"] == 4.0 and high.clinical["age"] is None  # the table lies outside of the folder
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
    assert "BraTS-GLI-00005-100 and BraTS-GLI-00005-101 are scans of one patient" in caplog.text


def test_flair_stands_in_with_a_warning(data, tmp_path, caplog):
    (data / SECOND / f"{SECOND}_t1ce.nii.gz").unlink()
    first, second = brats.load_volumes(data, tmp_path / "cache")
    assert f"no t1ce of 1 patients ({SECOND}): FLAIR stands in for it" in caplog.text
    np.testing.assert_array_equal(second.image[..., 2], second.image[..., 1])
    assert (first.image[..., 2] != first.image[..., 1]).any()


def test_t2_is_there_for_all_patients_or_for_none(data, tmp_path, caplog):
    before = cache.fingerprint(brats.Brats, data)
    file(data, "t2").unlink()
    assert cache.fingerprint(brats.Brats, data) != before
    first, second = brats.load_volumes(data, tmp_path / "cache")
    np.testing.assert_array_equal(first.image[..., 3], first.image[..., 1])
    assert (second.image[..., 3] != second.image[..., 1]).any()
    assert f"no t2 of 1 patients ({FIRST}): FLAIR stands in for it" in caplog.text
    assert any(f"{FIRST}: FLAIR stands in for T2;" in line for line in check(data))
    (data / SECOND / f"{SECOND}_t2.nii.gz").unlink()
    caplog.clear()
    volumes = list(brats.load_volumes(data, tmp_path / "cache"))
    assert {volume.image.shape[-1] for volume in volumes} == {3} and "t2" not in caplog.text
    assert not any("T2" in line for line in check(data))


def test_a_run_that_asks_for_t2_says_once_that_there_is_none(tiny, caplog):
    config = default.get_config().data
    config.dir, config.channels = str(tiny), ("flair", "t2")
    assert len(list(dataset.load_volumes(config))) == len(list(dataset.load_volumes(config))) == 2
    (line,) = (record.getMessage() for record in caplog.records)
    assert line == f"{tiny}: no t2, which config.data.channels names: FLAIR stands in for it"


def test_without_a_mask(data, tmp_path):
    (data / SECOND / f"{SECOND}_seg.nii.gz").unlink()
    first, second = brats.load_volumes(data, tmp_path / "cache")
    assert first.mask.any() and second.mask is None


def test_fractions_keep_their_order(tmp_path):
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
    """Whole as gzip, cut short as NIfTI."""
    return gzip.compress(gzip.decompress(path.read_bytes())[:600])


def table(root: Path, name: str, text: str) -> None:
    (root / name).write_text(text)


def retype(root, name, code):
    """Writes this datatype code into the header."""
    content = gzip.decompress(file(root, name).read_bytes())
    file(root, name).write_bytes(gzip.compress(content[:70] + code.to_bytes(2, "little") + content[72:]))


GRADE_IV = f"Grade,BraTS_2020_subject_ID\nIV,{FIRST}\n"
OLD = f"Brats20ID,Age\n{FIRST},old\n"
SHIFTED = LPS + np.eye(4, k=3) * 5
BAD = {
    "truncated": (lambda root: file(root, "t1").write_bytes(file(root, "t1").read_bytes()[:500]), "_t1.nii.gz cannot"),
    "no gzip": (lambda root: file(root, "seg").write_bytes(b"text"), "_seg.nii.gz cannot be read as NIfTI"),
    "cut short": (lambda root: file(root, "t1").write_bytes(half(file(root, "t1"))), "_t1.nii.gz cannot be read"),
    "a type that is none": (lambda root: retype(root, "flair", 999), "_flair.nii.gz cannot be read as NIfTI"),
    "two dimensions": (lambda root: rewrite(root, "flair", lambda array: array[..., 0]), r"has the shape \(28, 32\)"),
    "NaN": (lambda root: rewrite(root, "t1", lambda array: array * np.float32(np.nan)), "no finite numbers"),
    "another shape": (lambda root: rewrite(root, "seg", lambda array: array[:-1]), "_seg.nii.gz lies on another grid"),
    "another place": (lambda root: rewrite(root, "t1ce", np.copy, SHIFTED), "_t1ce.nii.gz lies on another grid"),
    "T1 twice": (lambda root: write(root / FIRST, {"t1": scan(0)["t1"]}, pattern="my_{name}.nii"), "holds the t1 as"),
    "grade": (lambda root: table(root, "name_mapping.csv", GRADE_IV), "row 2: Grade is 'IV', not HGG or LGG"),
    "age": (lambda root: table(root, "survival_info.csv", OLD), "row 2: Age is 'old', not a number"),
    "no table": (lambda root: table(root, "name_mapping.csv", '"'), "name_mapping.csv cannot be read as a table"),
    "two folders": (lambda root: write(root / "again" / FIRST, scan(5)), f"2 folders of patient {FIRST}|has 2 folders"),
}


@pytest.mark.parametrize("defect", BAD)
def test_a_bad_file_is_named(data, tmp_path, defect):
    spoil, message = BAD[defect]
    spoil(data)
    with pytest.raises(UserError, match=message) as caught:
        list(brats.load_volumes(data, tmp_path / "cache"))
    assert "\n" not in str(caught.value)
    errors = [line for line in check(data) if line.startswith("error")]
    assert errors and re.search(message, errors[0])


def test_a_header_that_announces_more_than_memory_holds(data):
    header = nibabel.Nifti1Header()
    header.set_data_shape((30000, 30000, 30000))
    header.set_data_dtype(np.int16)
    file(data, "flair").write_bytes(gzip.compress(header.binaryblock + bytes(1000)))
    with pytest.raises(UserError, match=r"\(30000, 30000, 30000\); expected 3-D and at most"):
        brats.read_scan(file(data, "flair"))


def test_nibabel_is_missing(data, monkeypatch):
    monkeypatch.setitem(sys.modules, "nibabel", None)
    for use in (check_verb.check, lambda root: next(brats.load_volumes(root, root / "cache"))):
        with pytest.raises(UserError, match=r"not installed; pip install 'lgg-jax\[nifti\]'"):
            use(data)


def test_check(data):
    (line,) = check(data)
    assert line.startswith("odd: 1 patients are TCGA's and may be in kaggle_3m as well: BraTS20_Training_002 (TCGA-CS")
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
        "odd: no folder for 1 rows: .*name_mapping.csv row 4 .BraTS20_Training_003",
        f"odd: .*{FIRST}: FLAIR stands in for T1;",
        f"error: .*no …_seg of {FIRST}",
        "error: .*_seg.nii.gz holds the values 0, 6, 12",
    ):
        assert pd.Series(lines).str.match(expected).sum() == 1, expected


def test_train_and_evaluate(tmp_path, lgg, small_phantoms):
    """With FLAIR and T2; then predict finds the same, and the other data set, without T2, is scored as well."""
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
