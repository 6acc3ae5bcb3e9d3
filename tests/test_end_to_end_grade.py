"""End to end with shipped configs, reduced by a few fields: grading by folds, the joint model, a split by slice."""

import functools
import json
import re
import shutil
from pathlib import Path

import jax
import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from PIL import Image
from sklearn.metrics import roc_auc_score

from lgg_jax.data.layouts import kaggle
from lgg_jax.training.checkpoints import restore_variables
from lgg_jax.weights.pretrained import read_pretrained

pytestmark = pytest.mark.usefixtures("small_resnet")
STEPS = {"train.minutes": 0, "train.num_steps": 4, "train.eval_every": 2, "train.checkpoint_every": 2,
         "train.log_every": 1, "data.size": 32, "data.validation_fraction": 0.25, "model.hidden": (4,)}  # fmt: skip
GRADE = STEPS | {"train.batch_size": 8, "optimizer.learning_rate": 1e-2}
JOINT = STEPS | {"train.batch_size": 4, "model.features": 2, "optimizer.warmup_steps": 1, "data.test_fraction": 0.4,
                 "eval.flip_tta": "off", "eval.largest_component": "off", "eval.threshold": 0.04}  # fmt: skip
LEVEL = {"accuracy", "f1", "auc", "auc_ci95", "brier", "ece", "n", "n_positive"}


def words(config: str, data: Path, workdir: Path, fields: dict) -> list[str]:
    changes = [f"--config.{name}={value}" for name, value in ({"data.dir": data} | fields).items()]
    return ["train", f"--config={ROOT}/configs/{config}.py", f"--workdir={workdir}", *changes]


def read_json(path: Path) -> dict:
    return json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(f"{path} holds {name}"))


def lines(workdir: Path) -> list[dict]:
    return [json.loads(line) for line in (workdir / "logs/metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def run_command(lgg):
    """A function that runs a command, asserts that it succeeds without output on stderr, and returns its stdout."""

    def command(*arguments: object) -> str:
        ended = lgg(*arguments)
        assert (ended.code, ended.err) == (0, ""), (arguments, ended)
        return ended.out

    return command


def trained_and_resumed(run_command, command: list[str], workdir: Path) -> str:
    """Train, double the number of steps, and resume; return the output of the resumed training."""
    run_command(*command)
    (workdir / "length.json").write_text('{"num_steps": 8}')
    printed = run_command(*command)
    assert "resuming from step 4 of 8" in printed
    assert [line["step"] for line in lines(workdir) if "train/loss" in line] == list(range(1, 9))
    return printed


@pytest.fixture(scope="module")
def folds(small_phantoms, weights, run_command, tmp_path_factory) -> Path:
    """Two folds of configs/grade_resnet50.py. The weights file is deleted before the evaluation."""
    folder = tmp_path_factory.mktemp("folds")
    file = shutil.copy(weights, folder / "weights.safetensors")
    fields = GRADE | {"model.pretrained": file, "data.folds": 2}
    first, second = (
        words("grade_resnet50", small_phantoms, folder / str(fold), fields | {"data.fold": fold}) for fold in range(2)
    )
    (folder / "output0").write_text(trained_and_resumed(run_command, first, folder / "0"))
    (folder / "output1").write_text(run_command(*second))
    Path(file).unlink()
    run_command("evaluate", f"--workdir={folder}/0", "--split=validation")
    run_command("evaluate", f"--workdir={folder}/0", f"--workdir={folder}/1")
    return folder


def test_patients_without_a_grade_are_skipped_and_counted(folds, small_phantoms):
    grades = kaggle.list_patients(small_phantoms).set_index("patient")["grade"]
    unknown = set(grades.index[grades.isna()])
    trained = [read_json(folds / f"{fold}/splits.json") for fold in range(2)]
    skipped = [unknown & {*splits["train"], *splits["validation"]} for splits in trained]
    assert unknown and set().union(*skipped) == unknown
    for fold, names in enumerate(skipped):
        line = f"skipped because their label is unknown: {len(names)} patients ({', '.join(sorted(names))})"
        assert (line in (folds / f"output{fold}").read_text()) == bool(names)
    cases = pd.read_csv(folds / "0/eval/folds/cases.csv")
    assert set(cases["patient"]) == set(grades.index) - unknown
    assert all(grades[row.patient] == row.grade == 2 + row.label for row in cases.itertuples())


def test_the_frozen_backbone_equals_the_weights_file(folds, weights):
    variables, pretrained = restore_variables(folds / "0")[0], read_pretrained(weights).variables
    for name in ("params", "batch_stats"):
        jax.tree.map(np.testing.assert_array_equal, variables[name]["backbone"], pretrained[name])


def test_pooled_folds_score_every_patient_once(folds):
    metrics, cases = read_json(folds / "0/eval/folds/metrics.json"), pd.read_csv(folds / "0/eval/folds/cases.csv")
    parts = [pd.read_csv(folds / str(fold) / "eval/test/cases.csv") for fold in range(2)]
    assert cases["patient"].is_unique and len(cases) == len(parts[0]) + len(parts[1])
    both = pd.concat(parts)
    assert metrics["patient"]["auc"] == pytest.approx(roc_auc_score(both["label"], both["logit"]))
    assert metrics["patient"]["n"] == len(both) and metrics["runs"] == [f"{folds}/0", f"{folds}/1"]
    splits = [read_json(folds / str(fold) / "splits.json") for fold in range(2)]
    assert all(set(part["patient"]) <= set(split["test"]) for part, split in zip(parts, splits, strict=True))


def test_mask_features_alone_give_every_slice_the_same_logit(small_phantoms, run_command, tmp_path):
    fields = GRADE | {"data.folds": 2, "train.num_steps": 20, "train.eval_every": 20}
    run_command(*words("grade_mask_features", small_phantoms, tmp_path / "W", fields))
    run_command("evaluate", f"--workdir={tmp_path / 'W'}")
    logits = pd.read_csv(tmp_path / "W/eval/test/slices.csv").groupby("patient")["logit"]
    np.testing.assert_allclose(logits.max(), logits.min(), rtol=1e-6)
    assert logits.mean().nunique() == logits.ngroups


@pytest.mark.parametrize("path, split", [("0/eval/test", "test"), ("0/eval/folds", "test"),
                                         ("0/eval/validation", "validation")])
def test_the_keys_of_metrics_json(folds, path, split, small_phantoms):
    metrics = read_json(folds / path / "metrics.json")
    about = {"task": "classification", "target": "grade", "region": "crop", "masks": "true", "split": split,
             "split_by": "patient", "dataset": str(small_phantoms)}  # fmt: skip
    assert {name: metrics[name] for name in about} == about
    assert ("step" in metrics) != ("runs" in metrics)
    assert 0 < metrics["majority_accuracy"] <= 1 and 0 <= metrics["threshold"] <= 1
    for level in ("slice", "patient"):
        assert set(metrics[level]) >= LEVEL
        assert 0 <= metrics[level]["accuracy"] <= 1 and metrics[level]["n_positive"] <= metrics[level]["n"]
    runs = range(2) if path.endswith("folds") else range(1)
    labels = [{row["label"] for row in read_json(folds / f"{run}/tabular.json")["training"]} for run in runs]
    regression = {"age + volume_share"} if all(len(classes) == 2 for classes in labels) else set()
    assert {"majority"} | regression == set(metrics["baselines"])


def test_a_patient_s_score_is_the_mean_logit_of_its_tumour_slices(folds, small_phantoms):
    slices, cases = (pd.read_csv(folds / "0/eval/test" / name) for name in ("slices.csv", "cases.csv"))
    assert slices["tumour_slice"].all()
    means = slices.groupby("patient")["logit"].mean()
    np.testing.assert_allclose(cases.set_index("patient")["logit"], means, rtol=1e-5, atol=1e-6)
    for volume in kaggle.load_volumes(small_phantoms, patients=cases["patient"]):
        expected = volume.slice_index[volume.mask.any(axis=(1, 2))]
        assert list(slices[slices["patient"] == volume.patient]["slice_index"]) == list(expected)


def assert_pictures(folder: Path, *names: str):
    for name in names:
        with Image.open(folder / name) as picture:
            assert picture.format == "PNG" and min(picture.size) > 100


def test_figures_and_the_workdir(folds):
    for path in ("0/eval/folds", "0/eval/test"):
        assert {"reliability.png", "confusion.png"} <= {file.name for file in (folds / path / "figures").iterdir()}
    assert_pictures(folds / "0/eval/folds/figures", "roc.png", "precision_recall.png", "confusion.png")
    assert {path.name for path in (folds / "0").iterdir()} == {
        "config.json", "splits.json", "length.json", "versions.json", "tabular.json", "postprocess.json",
        "checkpoints", "logs", "eval"}
    chosen = read_json(folds / "0/postprocess.json")
    assert {"threshold", "patient_threshold", "flip_tta", "step", "validation_score"} == set(chosen)
    assert read_json(folds / "0/eval/test/metrics.json")["threshold"] == chosen["threshold"]
    assert {"validation/loss", "train/accuracy"} <= {name for line in lines(folds / "0") for name in line}


def test_fine_tuning_keeps_the_input_format_of_the_first_run(folds, small_phantoms, run_command, tmp_path, weights):
    fields = GRADE | {"init_from": folds / "0", "train.num_steps": 1, "train.batch_size": 4}
    run_command(*words("grade_resnet50_finetune", small_phantoms, tmp_path / "run", fields))
    before, after = (read_json(run / "config.json")["model"] for run in (folds / "0", tmp_path / "run"))
    assert after["input_order"] == before["input_order"] == "BGR" and after["stride_on_first"]
    assert after["input_scale"] == before["input_scale"] and after["norm_epsilon"] == before["norm_epsilon"]
    tuned, pretrained = restore_variables(tmp_path / "run")[0], read_pretrained(weights).variables
    changed = jax.tree.map(lambda a, b: not np.array_equal(a, b), tuned["params"]["backbone"], pretrained["params"])
    assert jax.tree.all(changed)
    jax.tree.map(np.testing.assert_array_equal, tuned["batch_stats"]["backbone"], pretrained["batch_stats"])
    assert read_json(tmp_path / "run/splits.json") == read_json(folds / "0/splits.json")


def test_a_split_by_slice_prints_that_it_leaks(small_phantoms, run_command, tmp_path):
    """5 % of the slices are in the test set. Most patients have no slice with tumour in it."""
    fields = GRADE | {"data.split_by": "slice", "data.test_fraction": 0.05, "data.validation_fraction": 0.05}
    fields |= {"optimizer.frozen": ()}  # There are no pretrained weights.
    printed = run_command(*words("grade_resnet50", small_phantoms, tmp_path / "run", fields))
    assert "slices of one patient are in the training set and in the test set" in printed
    printed = run_command("evaluate", f"--workdir={tmp_path}/run")
    assert "training and test slices come from the same patients" in printed
    metrics = read_json(tmp_path / "run/eval/test/metrics.json")
    assert metrics["split_by"] == "slice" and 0 < metrics["patient"]["n"] < 12
    entries = set(read_json(tmp_path / "run/splits.json")["test"])
    slices = pd.read_csv(tmp_path / "run/eval/test/slices.csv")
    assert {f"{row.patient}:{row.slice_index}" for row in slices.itertuples()} < entries


@pytest.fixture(scope="module")
def joint(small_phantoms, weights, run_command, tmp_path_factory) -> Path:
    """A trained and evaluated run of configs/multitask.py."""
    workdir = tmp_path_factory.mktemp("joint") / "run"
    fields = JOINT | {"model.pretrained": weights}
    trained_and_resumed(run_command, words("multitask", small_phantoms, workdir, fields), workdir)
    printed = run_command("evaluate", f"--workdir={workdir}")
    assert "volume Dice" in printed and "per patient: AUC" in printed
    return workdir


def test_the_joint_model_has_both_parts(joint):
    metrics = read_json(joint / "eval/test/metrics.json")
    assert (metrics["task"], metrics["target"], metrics["masks"]) == ("joint", "grade", "predicted")
    assert set(metrics["segmentation"]["volume_dice"]) == {"mean", "median", "std", "ci95", "n"}
    assert set(metrics["classification"]["patient"]) >= LEVEL
    cases, grades = (pd.read_csv(joint / "eval/test" / name) for name in ("cases.csv", "grades.csv"))
    assert sorted(cases["patient"]) == read_json(joint / "splits.json")["test"]
    assert set(grades["patient"]) == set(cases["patient"][cases["grade"].notna()])
    assert_pictures(joint / "eval/test/figures", "overlays.png", "dice.png", "confusion.png")
    assert {"train/bce", "train/dice", "train/grade_loss", "validation/volume_dice"} <= {
        name for line in lines(joint) for name in line}


@pytest.fixture(scope="module")
def predicted(small_phantoms, lgg, tmp_path_factory):
    """A function (W, G) → predictions.csv of all phantoms with --workdir=W and, if there is a G, --grade_workdir=G."""

    @functools.cache
    def command(workdir: Path, *grade: Path) -> pd.DataFrame:
        output = tmp_path_factory.mktemp("predicted") / "out"
        runs = [f"--workdir={workdir}", *(f"--grade_workdir={folder}" for folder in grade)]
        assert lgg("predict", *runs, f"--input={small_phantoms}", f"--output={output}").code == 0
        return pd.read_csv(output / "predictions.csv", index_col="patient")

    return command


def test_predict_with_the_joint_model_equals_evaluate(joint, predicted):
    rows, folder = predicted(joint), joint / "eval/test"
    cases, grades = (pd.read_csv(folder / name, index_col="patient") for name in ("cases.csv", "grades.csv"))
    assert (rows["tumour_pixels"][cases.index] == cases["predicted_pixels"]).all()
    graded = grades[rows["tumour_pixels"][grades.index] > 0]
    assert len(graded), "the masks of all test patients are empty"
    np.testing.assert_allclose(rows["grade_3_probability"][graded.index], graded["probability"], rtol=1e-5)
    assert (rows["grade"].isna() == (rows["tumour_pixels"] == 0)).all()


def test_a_joint_model_combined_with_another_run(joint, trained, folds, predicted):
    both, segmented, graded = predicted(joint), predicted(trained, joint), predicted(joint, folds / "0")
    assert (graded["tumour_pixels"] == both["tumour_pixels"]).all() and segmented["grade"].notna().any()
    not_empty = both["tumour_pixels"] > 0
    assert (graded["grade_3_probability"] != both["grade_3_probability"])[not_empty].any()
    assert (segmented["tumour_pixels"] != both["tumour_pixels"]).any()


def test_the_joint_model_is_evaluated_without_known_grades(joint, small_phantoms, run_command, tmp_path):
    data = shutil.copytree(small_phantoms, tmp_path / "data", ignore=shutil.ignore_patterns("data.csv"))
    for folder in sorted(path for path in data.iterdir() if path.is_dir())[2:]:
        shutil.rmtree(folder)
    run_command("evaluate", f"--workdir={joint}", f"--data_dir={data}", "--split=all", "--name=other")
    metrics = read_json(joint / "eval/other/metrics.json")
    assert metrics["classification"] is None and metrics["segmentation"]["volume_dice"]["n"] == 2
    run_command("report", f"--workdir={joint}", f"--output={tmp_path / 'page'}")


@pytest.mark.parametrize("config, fields, expected", [
    ("grade_two_stage", {}, "config.data.segmentation_workdir names no run that predicts them"),
    ("grade_two_stage", {"data.segmentation_workdir": "nowhere"}, "cannot read splits from nowhere/splits.json"),
    ("grade_resnet50", {"data.train_masks": "predicted"}, "config.data.segmentation_workdir names no run"),
    ("grade_resnet50", {"data.target": "survival"}, "config.data.target='survival' is unknown"),
    ("grade_resnet50", {"data.region": "box"}, "config.data.region='box' is unknown"),
    ("grade_resnet50", {"data.tabular": "('age','grade')"}, "the column grade is what is to be predicted"),
    ("grade_resnet50", {"data.context": 1}, "config.data.context=1: config.model.name='classifier' takes 3 channels"),
    ("grade_resnet50", {"model.name": "resnet18"}, "config.model.name='resnet18' is unknown"),
    ("grade_resnet50", {"model.name": "unet"}, "config.model.name='unet', grade_head=False does not classify"),
    ("grade_resnet50", {"model.pretrained": "nowhere"}, "cannot read nowhere"),
    ("grade_mask_features", {"data.tabular": ()}, "config.model.name='linear' uses config.data.tabular alone"),
    ("grade_resnet50", {"augment.carve_mix": 0.5}, "the label does not apply to a pasted tumour"),
    ("grade_resnet50", {"eval.flip_tta": "maybe"}, "config.eval.flip_tta='maybe' is unknown"),
    ("grade_resnet50", {"eval.finer": (32,)}, "config.eval.finer=(32,): a classifier uses one grid"),
    ("grade_resnet50", {"train.start_size": 32}, "config.train.start_size=32: a classifier uses one grid"),
    ("grade_resnet50", {"eval.largest_component": "on"}, "fill_holes are for masks: a classifier predicts none"),
    ("grade_resnet50", {"model.norm": "group"}, "config.model.norm='group': config.model.name='classifier' has no"),
    ("multitask", {"augment.carve_mix": 0.5}, "the label does not apply to a pasted tumour"),
    ("unet", {"model.pretrained": "w"}, "config.model.pretrained=w: config.model.name='unet' has no pretrained part"),
    ("unet", {"model.name": "classifier"}, "'classifier', grade_head=False does not give a mask alone"),
    ("unet_cpu", {"model.name": "linear"}, "config.model.name='linear', grade_head=False does not give a mask alone"),
    ("unet", {"data.tabular": ("age",)}, "segmentation_workdir are for classifiers: a U-Net takes slices alone"),
    ("unet_resnet50", {"model.grade_head": True}, "grade_head=True does not give a mask alone"),
    ("unet_resnet50", {"data.context": 1}, "config.data.context=1: config.model.name='unet_resnet50' takes 3 channels"),
    ("unet_resnet50", {"optimizer.frozen": ("backbone/conv_stem",)}, "frozen='backbone/conv_stem' would stay random"),
    ("grade_resnet50", {"optimizer.frozen": ("backbone",)}, "config.optimizer.frozen='backbone' would stay random"),
    ("unet", {"data.split_by": "slice"}, "a split by slice with config.task=segmentation"),
    ("multitask", {"model.grade_head": False}, "does not give both a mask and a grade"),
])  # fmt: skip
def test_a_user_error_is_one_line(config, fields, expected, small_phantoms, lgg, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ended = lgg(*words(config, small_phantoms, tmp_path / "run", STEPS | {"optimizer.frozen": ()} | fields))
    assert ended.code == 2 and len(ended.err.splitlines()) == 1, ended
    assert re.fullmatch(f"lgg_jax: error: .*{re.escape(expected)}.*; .+", ended.err.strip()), ended.err
    assert not list(tmp_path.iterdir()), "the failed command wrote files"
