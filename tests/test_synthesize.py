"""`synthesize`: layout, reproducibility and image properties of the phantoms."""

import hashlib

import numpy as np
import pandas as pd
import pytest
from absl import flags
from PIL import Image

from lgg_jax import synthesize
from lgg_jax.data.layouts import kaggle
from lgg_jax.errors import UserError

ORIGINAL_COLUMNS = (
    "Patient,RNASeqCluster,MethylationCluster,miRNACluster,CNCluster,RPPACluster,OncosignCluster,COCCluster,"
    "histological_type,neoplasm_histologic_grade,tumor_tissue_site,laterality,tumor_location,gender,"
    "age_at_initial_pathologic,race,ethnicity,death01"
)


def digests(folder):
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def volumes(phantoms):
    return {volume.patient: volume for volume in kaggle.load_volumes(phantoms)}


def test_same_seed_same_bytes(tmp_path):
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        synthesize.synthesize(tmp_path / name, patients=1, seed=seed)
    assert digests(tmp_path / "a") == digests(tmp_path / "b")
    assert not digests(tmp_path / "a").items() & digests(tmp_path / "c").items()


def test_more_patients_do_not_change_the_first_ones(phantoms, tmp_path):
    synthesize.synthesize(tmp_path / "one", patients=1)
    one = digests(tmp_path / "one")
    del one["data.csv"]
    assert one.items() <= digests(phantoms).items()


def test_layout(phantoms):
    table = kaggle.list_patients(phantoms)
    assert len(table) == 12 and set(table["institution"]) == {"CS", "DU", "HT", "FG"}
    assert table["folder"].str.fullmatch(r".*/TCGA_[A-Z]{2}_\d{4}_\d{8}").all()
    pair = kaggle.slice_pairs(kaggle.Path(table["folder"][0]))[0]
    with Image.open(pair.image) as image, Image.open(pair.mask) as mask:
        assert (image.mode, image.size, mask.mode, mask.size) == ("RGB", (256, 256), "L", (256, 256))


def test_table_has_the_original_columns_and_missing_cells(phantoms):
    table = pd.read_csv(phantoms / "data.csv")
    assert ",".join(table.columns) == ORIGINAL_COLUMNS
    assert table.set_index("Patient").loc["TCGA_CS_0004"].isna().all()
    assert 0.02 < table.drop(index=3).isna().to_numpy().mean() < 0.2
    grades = table["neoplasm_histologic_grade"].value_counts()
    assert set(grades.index) == {1, 2} and grades.min() >= 3


def test_about_a_third_of_the_slices_have_tumour(volumes):
    with_tumour = [volume.mask.any(axis=(1, 2)) for volume in volumes.values()]
    assert all(18 <= len(slices) <= 22 for slices in with_tumour)
    assert 0.25 < np.concatenate(with_tumour).mean() < 0.45
    assert all(slices.sum() >= 2 for slices in with_tumour)


def test_tumours_are_brighter_on_flair_but_no_threshold_segments_them(volumes):
    scores = []
    for volume in volumes.values():
        flair = volume.image[..., 1]
        slices = volume.mask.any(axis=(1, 2))
        assert flair[volume.mask].mean() > 1.2 * np.median(flair[slices][flair[slices] > 30])
        for quantile in range(80, 100):
            bright = flair >= np.percentile(flair, quantile)
            scores.append(2 * (bright & volume.mask).sum() / (bright.sum() + volume.mask.sum()))
    assert np.max(np.reshape(scores, (12, 20)).mean(axis=0)) < 0.6


def test_grade_three_enhances_after_contrast(volumes, phantoms):
    grades = kaggle.list_patients(phantoms).set_index("patient")["grade"].dropna()
    ratio = {2.0: [], 3.0: []}
    for patient, grade in grades.items():
        after = volumes[patient].image[..., 2]
        if not (after == volumes[patient].image[..., 1]).all():
            tissue = after[volumes[patient].mask]
            ratio[grade].append(np.percentile(tissue, 98) / np.percentile(tissue, 20))
    assert min(ratio[3.0]) > max(ratio[2.0])


def test_missing_sequences_repeat_flair(volumes):
    equal = {
        patient[-2:]: [bool((volume.image[..., channel] == volume.image[..., 1]).all()) for channel in (0, 2)]
        for patient, volume in volumes.items()
    }
    assert {patient: flags for patient, flags in equal.items() if any(flags)} == {
        "06": [True, False], "09": [False, True], "12": [True, True],
    }  # fmt: skip


@pytest.mark.parametrize("content", ["folder with a file", "file"])
def test_nothing_is_overwritten(tmp_path, content):
    output = tmp_path / "output"
    if content == "file":
        output.write_text("precious")
    else:
        output.mkdir()
        (output / "file").write_text("precious")
    with pytest.raises(UserError, match=r"--output"):
        synthesize.synthesize(output, patients=1)
    assert list(digests(tmp_path).values()) == [hashlib.sha256(b"precious").hexdigest()]


def run(output):
    flag_values = flags.FlagValues()
    synthesize.define_flags(flag_values)
    flag_values(["synthesize", f"--output={output}", "--patients=1", "--seed=5"])
    return synthesize.main(flag_values)


def test_an_output_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot write to"):
        run(tmp_path / "file" / "data")


def test_the_verb(tmp_path, capsys):
    assert run(tmp_path / "new" / "data") == 0
    assert "1 phantom patients" in capsys.readouterr().out
    assert len(kaggle.list_patients(tmp_path / "new" / "data")) == 1
