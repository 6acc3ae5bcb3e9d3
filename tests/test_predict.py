"""`predict`: masks are equal in every format, and predictions.csv has one row per scan."""

import shutil
from pathlib import Path

import highdicom
import nibabel
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scan_files import (
    BIRTH,
    HOSPITAL_ID,
    IMAGE,
    NAME,
    SPACING,
    by_position,
    orient,
    write_dicom,
    write_nifti,
    write_tiff,
)
from scipy.special import expit

from configs import grade_two_stage
from lgg_jax import predict, train
from lgg_jax.data.layouts import kaggle
from lgg_jax.data.volume import foreground
from lgg_jax.errors import UserError
from lgg_jax.figures.masks import overlay_image
from lgg_jax.inference.predictor import Postprocessing
from lgg_jax.metrics.overlap import dice
from lgg_jax.scans import find_scans
from lgg_jax.segmenter import Segmenter
from lgg_jax.workdir import read_chosen

SEQUENCES = {"t1": 0, "flair": 1, "t1ce": 2}


def table(output: Path) -> pd.DataFrame:
    return pd.read_csv(output / "predictions.csv", index_col="patient", keep_default_na=False)


def read_tiff(folder: Path, kind: str) -> np.ndarray:
    """Read the …_<number>_<kind>.tif files as (slice, height, width)."""
    files = sorted(folder.glob(f"*_{kind}.tif"), key=lambda path: int(path.stem.split("_")[-2]))
    return np.stack([np.asarray(Image.open(path)) for path in files])


@pytest.fixture(scope="module")
def scored(trained, lgg, tmp_path_factory) -> pd.DataFrame:
    """cases.csv of `evaluate` for all phantom patients."""
    workdir = shutil.copytree(trained, tmp_path_factory.mktemp("scored") / "run")
    assert lgg("evaluate", f"--workdir={workdir}", "--split=all").code == 0
    return pd.read_csv(workdir / "eval/all/cases.csv", index_col="patient", keep_default_na=False)


@pytest.fixture(scope="module")
def patient(small_phantoms) -> Path:
    """The folder of a patient with all three sequences."""
    return next(small_phantoms.glob("TCGA_DU_0001_*"))


@pytest.fixture(scope="module")
def everyone(small_phantoms, trained, lgg, tmp_path_factory):
    """The result of the command for all phantom patients, and its output folder."""
    output = tmp_path_factory.mktemp("everyone") / "out"
    ended = lgg("predict", f"--workdir={trained}", f"--input={small_phantoms}", f"--output={output}", "--probability")
    return ended, output


def test_masks_equal_those_of_evaluate(everyone, scored, small_phantoms, trained):
    ended, output = everyone
    rows, chosen = table(output), read_chosen(trained, Postprocessing)
    assert ended.code == 0 and f"written: {output}/predictions.csv, 12 of 12 scans done" in ended.out
    assert rows["tumour_pixels"].sum() > 0, "all masks are empty"
    assert (rows["tumour_pixels"] == scored["predicted_pixels"]).all() and (rows["slices"] == scored["slices"]).all()
    assert (rows["missing_sequences"] == scored["missing_sequences"]).all()
    for volume in kaggle.load_volumes(small_phantoms):
        mask = read_tiff(output / rows["mask"][volume.patient], "mask")
        assert mask.dtype == np.uint8 and set(np.unique(mask)) <= {0, 255}
        assert rows["tumour_slices"][volume.patient] == np.count_nonzero(mask.any(axis=(1, 2)))
        tp, fp, fn = (np.count_nonzero(x) for x in (mask & volume.mask, mask & ~volume.mask, ~(mask > 0) & volume.mask))
        assert float(scored["volume_dice"][volume.patient]) == pytest.approx(dice(tp, fp, fn))
        probability = read_tiff(output / volume.patient, "probability")
        assert probability.dtype == np.float32
        np.testing.assert_array_equal(mask > 0, chosen.mask(probability, foreground(volume.image)))


def test_a_missing_sequence_is_one_line_per_scan(everyone, scored):
    lines = everyone[0].err.splitlines()
    expected = {"none": 0, "pre": 1, "post": 1, "pre+post": 2}
    assert len(lines) == sum(expected[missing] for missing in scored["missing_sequences"]) == 4
    assert all(line.startswith("lgg_jax: warning: ") and line.endswith("as in training") for line in lines)


def test_tumour_volume_without_pixel_size(everyone):
    ended, output = everyone
    rows = table(output)
    assert "pixel size unknown: 12 scans" in ended.out
    assert (rows["spacing_mm"] == "unknown").all() and (rows["tumour_ml"] == "").all() and (rows["error"] == "").all()


def test_the_overlay_is_the_slice_with_most_tumour(everyone, small_phantoms):
    rows = table(everyone[1])
    name = rows["tumour_pixels"].idxmax()
    mask = read_tiff(everyone[1] / name, "mask") > 0
    [volume] = kaggle.load_volumes(small_phantoms, patients=[name])
    index = mask.sum(axis=(1, 2)).argmax()
    expected = overlay_image(volume.image[index], np.zeros_like(mask[0]), mask[index])
    np.testing.assert_array_equal(np.asarray(Image.open(everyone[1] / name / "overlay.png")), expected)


def test_the_same_mask_in_three_formats(patient, everyone, trained, lgg, tmp_path):
    """DICOM with slices from the crown down and sagittal NIfTI give the mask of the TIFF slices."""
    image = kaggle.read_volume(patient, {}).image
    for name, channel in SEQUENCES.items():
        write_nifti(tmp_path / f"scans/nifti/p_{name}.nii.gz", image[..., channel], "RSA")
        write_dicom(tmp_path / "scans/dicom" / name, image[..., channel], "IPL")
    ended = lgg("predict", f"--workdir={trained}", f"--input={tmp_path}/scans", f"--output={tmp_path}/out")
    assert (ended.code, ended.err) == (0, "") and "pixel size" not in ended.out
    tiff = read_tiff(everyone[1] / "TCGA_DU_0001", "mask") > 0
    assert tiff.any()
    rows = table(tmp_path / "out")
    assert (rows["tumour_pixels"] == tiff.sum()).all() and (rows["spacing_mm"] == "4×1×0.95").all()
    np.testing.assert_allclose(rows["tumour_ml"], tiff.sum() * np.prod(SPACING) / 1000, atol=5e-4)
    nifti = nibabel.load(tmp_path / "out" / rows["mask"]["p"])
    expected, affine = orient(tiff, "RSA")
    np.testing.assert_array_equal(np.asarray(nifti.dataobj), expected)
    np.testing.assert_allclose(nifti.affine, affine, atol=1e-5)
    [series] = set(rows.index) - {"p"}
    headers = sorted(by_position(tmp_path / "scans/dicom/flair"), key=lambda header: header.ImagePositionPatient[2])
    path = tmp_path / "out" / rows["mask"][series]
    frames = highdicom.seg.segread(path).get_pixels_by_source_instance([header.SOPInstanceUID for header in headers])
    np.testing.assert_array_equal(frames[..., 0], tiff)
    written = path.read_bytes() + (tmp_path / "out/predictions.csv").read_bytes() + ended.out.encode()
    assert not any(secret.encode() in written for secret in (NAME, BIRTH, HOSPITAL_ID))


def test_a_bad_scan_among_good_ones(patient, everyone, trained, lgg, tmp_path):
    """Two runs are passed, the same one twice: their mean equals the single run."""
    shutil.copytree(patient, tmp_path / "scans" / patient.name)
    write_tiff(tmp_path / "scans/TCGA_XX_0002_20000101")
    broken = tmp_path / "scans/TCGA_XX_0002_20000101/TCGA_XX_0002_20000101_3.tif"
    broken.write_bytes(b"II*\0")
    (tmp_path / "scans/TCGA_ZZ_0003").mkdir()
    runs = [f"--workdir={trained}"] * 2
    ended = lgg("predict", *runs, f"--input={tmp_path}/scans", f"--output={tmp_path}/out")
    assert ended.code == 2 and "1 of 3 scans done" in ended.out
    rows, lines = table(tmp_path / "out"), ended.err.splitlines()
    assert [line.removeprefix("lgg_jax: error: ") for line in lines] == list(rows["error"][1:])
    assert str(broken) in lines[0] and "TCGA_ZZ_0003" in lines[1] and "contains no scan" in lines[1]
    assert list(rows.index) == ["TCGA_DU_0001", "TCGA_XX_0002", "TCGA_ZZ_0003"]
    assert rows["error"].iloc[0] == ""
    assert rows["tumour_pixels"].iloc[0] == str(table(everyone[1])["tumour_pixels"]["TCGA_DU_0001"])
    assert (rows["mask"].iloc[1:] == "").all() and (rows["tumour_pixels"].iloc[1:] == "").all()
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"predictions.csv", "TCGA_DU_0001"}


def test_the_second_copy_in_the_zip_is_skipped(tmp_path):
    """Folders with the same name but a different slice ("other") or a missing slice ("part") are not copies."""
    for place in ("kaggle_3m", "lgg-mri-segmentation/kaggle_3m", "other", "part"):
        for name in ("TCGA_CS_0001_19990101", "TCGA_DU_0002_20000202"):
            write_tiff(tmp_path / place / name)
    Image.new("RGB", (14, 12)).save(tmp_path / "other/TCGA_CS_0001_19990101/TCGA_CS_0001_19990101_3.tif")
    (tmp_path / "part/TCGA_DU_0002_20000202/TCGA_DU_0002_20000202_6.tif").unlink()
    with pytest.warns(UserWarning, match="scans occur twice: using those in") as warned:
        sources = predict.without_copies(find_scans(tmp_path))
    assert [str(source.path.relative_to(tmp_path)) for source in sources] == [
        "kaggle_3m/TCGA_CS_0001_19990101", "kaggle_3m/TCGA_DU_0002_20000202", "other/TCGA_CS_0001_19990101",
        "part/TCGA_DU_0002_20000202",
    ]  # fmt: skip
    assert [source.patient for source in sources][:2] == ["TCGA_CS_0001", "TCGA_DU_0002"]
    copies = {"lgg-mri-segmentation/kaggle_3m": 2, "other": 1, "part": 1}
    assert [str(warning.message) for warning in warned] == [
        f"{count} scans occur twice: using those in {tmp_path}/kaggle_3m, ignoring those in {tmp_path}/{place}"
        for place, count in copies.items()
    ]


def test_series_of_one_folder_are_no_copies(tmp_path):
    """One folder has two studies, which have the same source path."""
    for study in ("1.2", "1.3"):
        for name in ("flair", "t1"):
            write_dicom(tmp_path / "p" / f"{study} {name}", IMAGE[..., 1], study=study)
    sources = find_scans(tmp_path)
    assert len(predict.without_copies(sources)) == len(sources) == 2


def test_the_size_limit(patient, trained, lgg, tmp_path):
    ended = lgg("predict", f"--workdir={trained}", f"--input={patient}", f"--output={tmp_path}/out",
                "--max_gigabytes=1e-5")  # fmt: skip
    assert ended.code == 2 and "is larger than 1e-05 GB" in table(tmp_path / "out")["error"].iloc[0]


@pytest.fixture(scope="module")
def grade_run(weights, small_phantoms, trained, lgg, tmp_path_factory) -> Path:
    """A trained and evaluated run of configs/grade_two_stage.py with the masks of `trained`."""
    config = grade_two_stage.get_config()
    config.update_from_flattened_dict({
        "data.dir": str(small_phantoms), "data.segmentation_workdir": str(trained), "data.size": 32,
        "model.hidden": (4,), "train.num_steps": 4, "train.eval_every": 4, "train.checkpoint_every": 4,
        "train.batch_size": 8, "eval.batch_size": 8, "optimizer.learning_rate": 1e-2, "model.pretrained": str(weights),
    })  # fmt: skip
    workdir = tmp_path_factory.mktemp("grade") / "run"
    train.train(config, workdir)
    assert lgg("evaluate", f"--workdir={workdir}").code == 0
    return workdir


def test_grades_equal_those_of_evaluate(grade_run, trained, small_phantoms, lgg, tmp_path):
    ended = lgg("predict", f"--workdir={trained}", f"--grade_workdir={grade_run}", f"--input={small_phantoms}",
                f"--output={tmp_path}/out")  # fmt: skip
    assert ended.code == 0
    rows = table(tmp_path / "out")
    cases = pd.read_csv(grade_run / "eval/test/cases.csv", index_col="patient")
    graded = rows.loc[[name for name in cases.index if rows["tumour_pixels"][name]]]
    assert len(graded), "the masks of all test patients are empty"
    expected = expit(cases["logit"][graded.index])
    np.testing.assert_allclose(graded["grade_3_probability"].astype(float), expected, rtol=1e-5)
    assert set(rows["grade"].astype(str)) <= {"2", "3", ""}
    assert ((rows["grade"] == "") == (rows["tumour_pixels"] == 0)).all()


def test_clinical_values_from_a_table(grade_run, trained, patient, lgg, tmp_path):
    """There is no data.csv. Two scans have a row in the table; the third has none."""
    for name in ("old", "unknown", "without"):
        shutil.copytree(patient, tmp_path / "scans" / name)
    clinical = tmp_path / "cases.csv"
    clinical.write_text("patient,age,note\nold,90,x\nunknown,,y\nsomebody else,3,z\n")
    words = ["predict", f"--workdir={trained}", f"--input={tmp_path}/scans", f"--output={tmp_path}/out"]
    ended = lgg(*words, f"--grade_workdir={grade_run}", f"--clinical={clinical}")
    assert (ended.code, ended.err) == (0, "lgg_jax: warning: the clinical table has no row for without\n")
    probability = table(tmp_path / "out")["grade_3_probability"]
    assert probability["unknown"] == probability["without"] != probability["old"]


@pytest.mark.parametrize("content, expected", [
    ("patient,age\np,old\n", "row 2: age is 'old', not a number"),
    ("patient,age\np,40\np,41\n", "row 3 names patient p a second time"),
    ("patient,age\n,40\n", "row 2 has no patient"),
    ("Patient,age\np,40\n", "has no column patient"),
    ("patient,Age\np,40\n", "has no clinical column"),
])  # fmt: skip
def test_an_invalid_clinical_table(content, expected, tmp_path):
    path = tmp_path / "cases.csv"
    path.write_text(content)
    with pytest.raises(UserError, match=expected):
        predict.clinical_table(path)


def test_the_overlay_of_an_empty_mask_is_the_middle_slice(tmp_path):
    class EmptySegmenter(Segmenter):
        def probability(self, scan):
            return np.zeros(scan.image.shape[:3], np.float32)

        def mask(self, probability, _scan):
            return probability > 0.5

    [source] = find_scans(write_tiff(tmp_path / "p"))
    scan = source.read()
    mask, row = predict.predict(scan, EmptySegmenter([]), tmp_path / "out")
    assert not mask.any() and (row["tumour_pixels"], row["tumour_slices"], row["slices"]) == (0, 0, 6)
    expected = overlay_image(scan.volume.image[3], mask[3], mask[3])
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "out/overlay.png")), expected)


@pytest.mark.parametrize("changed, expected", [
    ({"input": "nowhere"}, "no such file or folder: nowhere"),
    ({"input": "note.txt"}, "file format is not supported (note.txt)"),
    ({"workdir": "nowhere"}, "cannot read nowhere/config.json"),
    ({"output": "scans/out"}, "--input=scans and --output=scans/out: one contains the other"),
    ({"output": "."}, "--input=scans and --output=.: one contains the other"),
    ({"output": "link"}, "--input=scans and --output=link: one contains the other"),
    ({"output": "note.txt"}, "cannot write to note.txt"),
    ({"clinical": "note.txt"}, "--clinical without --grade_workdir"),
    ({"grade_workdir": "RUN"}, "holds a run that does not grade"),
    ({"max_gigabytes": "-1"}, "max_gigabytes"),
])  # fmt: skip
def test_user_errors_are_one_line_and_write_nothing(changed, expected, patient, trained, lgg, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(patient, "scans")
    Path("note.txt").write_text("no scan")
    Path("link").symlink_to("scans")
    before = sorted(tmp_path.rglob("*"))
    flags = {"workdir": trained, "input": "scans", "output": "out"} | changed
    ended = lgg("predict", *(f"--{name}={str(value).replace('RUN', str(trained))}" for name, value in flags.items()))
    assert ended.code == 2 and len(ended.err.splitlines()) == 1, ended
    assert expected in ended.err and sorted(tmp_path.rglob("*")) == before
