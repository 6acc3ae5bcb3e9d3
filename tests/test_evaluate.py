"""`evaluate`: the scored patients of one run or several, and the files that it writes."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from lgg_jax import evaluate
from lgg_jax.data.layouts import kaggle
from lgg_jax.errors import UserError
from lgg_jax.segmenter import load_segmenter


@pytest.fixture
def run(trained, tmp_path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "run"))


@pytest.mark.parametrize("split", ["test", "all"])
def test_every_patient_of_the_split_is_scored(run, split, small_phantoms):
    output = evaluate.evaluate(run, split)
    assert output == run / "eval" / split
    everyone = set(kaggle.list_patients(small_phantoms)["patient"])
    splits = json.loads((run / "splits.json").read_text())
    cases = pd.read_csv(output / "cases.csv")
    assert set(cases["patient"]) == (everyone if split == "all" else set(splits[split]))
    metrics = json.loads((output / "metrics.json").read_text())
    assert metrics["volume_dice"]["n"] + metrics["both_empty"] == len(cases)
    slices = {volume.patient: len(volume.image) for volume in kaggle.load_volumes(small_phantoms)}
    assert all(slices[row.patient] == row.slices for row in cases.itertuples())


def test_the_validation_score_equals_that_of_the_training(run):
    metrics = json.loads((evaluate.evaluate(run, "validation") / "metrics.json").read_text())
    chosen = json.loads((run / "postprocess.json").read_text())
    assert metrics["volume_dice"]["mean"] == pytest.approx(chosen["validation_volume_dice"], abs=1e-6)
    assert metrics["step"] == chosen["step"]
    assert metrics["postprocessing"] == {name: chosen[name] for name in metrics["postprocessing"]}


def test_a_name_and_a_step(run):
    output = evaluate.evaluate(run, "train", name="early", step=20)
    assert output == run / "eval" / "early"
    assert json.loads((output / "metrics.json").read_text())["step"] == 20


def test_a_split_without_patients(run):
    splits = json.loads((run / "splits.json").read_text())
    splits["train"] += splits["test"]
    splits["test"] = []
    (run / "splits.json").write_text(json.dumps(splits))
    with pytest.raises(UserError, match="has no test patients"):
        evaluate.evaluate(run)


def test_data_that_has_moved(run, small_phantoms, tmp_path, lgg):
    """The patients of the split are found in another folder; a folder without them is an error."""
    before = pd.read_csv(evaluate.evaluate(run) / "cases.csv")
    moved = shutil.copytree(small_phantoms, tmp_path / "moved")
    config = json.loads((run / "config.json").read_text())
    config["data"] |= {"dir": "gone", "cache_dir": "gone as well"}
    (run / "config.json").write_text(json.dumps(config))
    ended = lgg("evaluate", f"--workdir={run}")
    assert ended.code == 2 and "no such folder: gone" in ended.err
    assert lgg("evaluate", f"--workdir={run}", f"--data_dir={moved}", "--name=moved").code == 0
    pd.testing.assert_frame_equal(pd.read_csv(run / "eval/moved/cases.csv"), before)
    tested = before["patient"][0]
    shutil.rmtree(next(moved.glob(f"{tested}_*")))
    ended = lgg("evaluate", f"--workdir={run}", f"--data_dir={moved}")
    assert ended.code == 2 and f"lacks 1 of the test patients of {run} ({tested})" in ended.err
    assert "--split=all to score another data set" in ended.err


@pytest.fixture
def folds(trained, tmp_path) -> list[Path]:
    """Two runs whose test sets are the two halves of the patients."""
    splits = json.loads((trained / "splits.json").read_text())
    everyone = splits["train"] + splits["validation"] + splits["test"]
    runs = []
    for fold in range(2):
        runs.append(Path(shutil.copytree(trained, tmp_path / f"fold{fold}")))
        rest = everyone[1 - fold :: 2]
        sets = {"train": rest[1:], "validation": rest[:1], "test": everyone[fold::2]}
        (runs[-1] / "splits.json").write_text(json.dumps(splits | sets))
    return runs


@pytest.mark.parametrize("moved", [False, True])
def test_folds_are_scored_together(folds, lgg, moved, small_phantoms):
    where = [f"--data_dir={small_phantoms}"] if moved else []
    for run in folds if moved else ():
        config = json.loads((run / "config.json").read_text())
        (run / "config.json").write_text(json.dumps(config | {"data": config["data"] | {"dir": "gone"}}))
    ended = lgg("evaluate", *(f"--workdir={run}" for run in folds), *where)
    assert (ended.code, ended.err) == (0, "")
    output = folds[0] / "eval" / "folds"
    table, *parts = (pd.read_csv(path / "cases.csv") for path in (output, *(run / "eval/test" for run in folds)))
    assert table["patient"].is_unique and [len(table), *map(len, parts)] == [12, 6, 6]
    metrics = json.loads((output / "metrics.json").read_text())
    assert metrics["runs"] == [str(run) for run in folds]
    assert (metrics["task"], metrics["split"], metrics["split_by"]) == ("segmentation", "test", "patient")
    assert metrics["volume_dice"]["n"] + metrics["both_empty"] == 12
    assert metrics["volume_dice"]["mean"] == pytest.approx(table["volume_dice"].mean())
    assert (output / "figures/dice.png").exists()
    assert f"written: {output}/metrics.json" in ended.out


@pytest.mark.parametrize("words, message", [
    (("--workdir={0}", "--workdir={0}/"), "one --workdir is given twice"),
    (("--workdir={0}", "--workdir={1}", "--split=train"), "some patients are in the train set of two runs and others"),
    (("--workdir={0}", "--workdir={1}", "--step=20"), "--step is for one run"),
    (("--workdir={0}", "--workdir={1}", "--data_dir=d"), "no such folder: d"),
    (("--workdir={0}", "--workdir=nowhere"), "cannot read nowhere/config.json"),
    (("--workdir={0}", "--workdir={other}"), "the workdirs hold different tasks or targets"),
])  # fmt: skip
def test_folds_that_do_not_belong_together(folds, lgg, tmp_path, words, message):
    other = Path(shutil.copytree(folds[1], tmp_path / "other"))
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"task": "joint"}))
    overlapping = json.loads((folds[1] / "splits.json").read_text())
    overlapping["train"] += json.loads((folds[0] / "splits.json").read_text())["train"][:1]
    overlapping["test"] = [name for name in overlapping["test"] if name not in overlapping["train"]]
    (folds[1] / "splits.json").write_text(json.dumps(overlapping))
    ended = lgg("evaluate", *(word.format(*folds, other=other) for word in words))
    assert ended.code == 2 and len(ended.err.splitlines()) == 1
    assert ended.err.startswith(f"lgg_jax: error: {message}"), ended.err
    assert not (folds[0] / "eval").exists()


@pytest.fixture
def ensemble(trained, tmp_path) -> list[str]:
    """Two runs with the same split and different post-processing."""
    runs = [shutil.copytree(trained, tmp_path / name) for name in ("one", "other")]
    chosen = json.loads((runs[1] / "postprocess.json").read_text())
    changed = {"flip_tta": not chosen["flip_tta"], "threshold": 0.3, "finer": [16, 32]}
    (runs[1] / "postprocess.json").write_text(json.dumps(chosen | changed))
    return list(map(str, runs))


def test_runs_of_one_split_are_an_ensemble(ensemble, small_phantoms, lgg):
    """The Dice of each patient is 2 |A ∩ B| / (|A| + |B|) for the mask that `predict` computes with both runs."""
    ended = lgg("evaluate", *(f"--workdir={run}" for run in ensemble))
    assert (ended.code, ended.err) == (0, "")
    output = Path(ensemble[0]) / "eval/ensemble"
    metrics, cases = json.loads((output / "metrics.json").read_text()), pd.read_csv(output / "cases.csv")
    splits = json.loads((Path(ensemble[0]) / "splits.json").read_text())
    assert (metrics["runs"], metrics["split"], set(cases["patient"])) == (ensemble, "test", set(splits["test"]))
    predicted = load_segmenter(ensemble)
    for scan in kaggle.load_volumes(small_phantoms, patients=splits["test"]):
        mask = predicted.segment(scan)
        dice = 2 * (mask & scan.mask).sum() / (mask.sum() + scan.mask.sum())
        assert cases.set_index("patient")["volume_dice"][scan.patient] == pytest.approx(dice)
    alone = pd.read_csv(evaluate.evaluate(ensemble[0]) / "cases.csv")
    assert not alone["volume_dice"].equals(cases["volume_dice"]), "the second run changes nothing"
    assert (output / "figures/overlays.png").exists()


def test_an_ensemble_of_folds_on_other_data(folds, lgg, small_phantoms, tmp_path):
    """Both runs score every patient. Patients that either was trained or validated on are counted and printed."""
    for run in folds:
        splits = json.loads((run / "splits.json").read_text())
        splits["train"] = [patient for patient in splits["train"] if patient[-1] not in "0123"]
        (run / "splits.json").write_text(json.dumps(splits))
    leaked = {patient for run in folds for name in ("train", "validation")
              for patient in json.loads((run / "splits.json").read_text())[name]}  # fmt: skip
    assert 0 < len(leaked) < 12
    other = shutil.copytree(small_phantoms, tmp_path / "data")
    runs = (f"--workdir={run}" for run in folds)
    ended = lgg("evaluate", *runs, f"--data_dir={other}", "--split=all", "--name=x")
    assert ended.code == 0, ended.err
    assert f"{len(leaked)} of 12 patients were used for training or validation" in ended.out
    metrics = json.loads((folds[0] / "eval/x/metrics.json").read_text())
    assert (metrics["dataset"], metrics["runs"]) == (str(other), [str(run) for run in folds])
    assert metrics["volume_dice"]["n"] + metrics["both_empty"] == 12
    assert metrics["patients_trained_or_validated_on"] == len(leaked)


def test_scores_of_other_patients_are_not_overwritten(ensemble, small_phantoms, lgg, tmp_path):
    other = shutil.copytree(small_phantoms, tmp_path / "data")
    one, both = [f"--workdir={ensemble[0]}"], [f"--workdir={run}" for run in ensemble]
    for runs, name in ((one, "all"), (both, "ensemble")):
        output = Path(ensemble[0]) / "eval" / name / "metrics.json"
        assert lgg("evaluate", *runs, "--split=all").code == 0
        before = output.read_bytes()
        ended = lgg("evaluate", *runs, "--split=all", f"--data_dir={other}")
        assert ended.code == 2, ended
        assert f"error: {output.parent} holds other scores (dataset {small_phantoms}, not {other}); pass" in ended.err
        assert output.read_bytes() == before
    ended = lgg("evaluate", *both)
    assert ended.code == 2 and "ensemble holds other scores (split all, not test)" in ended.err
    assert lgg("evaluate", *both, "--name=tested").code == lgg("evaluate", *both, "--split=all").code == 0


def test_scores_of_other_runs_or_steps_are_not_overwritten(ensemble, lgg, tmp_path):
    third = f"--workdir={shutil.copytree(ensemble[1], tmp_path / 'third')}"
    one, other = (f"--workdir={run}" for run in ensemble)
    assert lgg("evaluate", one, other).code == 0
    ended = lgg("evaluate", one, third)
    assert ended.code == 2 and "ensemble holds other scores (runs [" in ended.err, ended
    assert lgg("evaluate", one).code == 0
    path = Path(ensemble[0]) / "eval/test/metrics.json"
    scores = json.loads(path.read_text())
    path.write_text(json.dumps(scores | {"step": 7}))
    ended = lgg("evaluate", one, f"--step={scores['step']}")
    assert ended.code == 2 and f"test holds other scores (step 7, not {scores['step']}); pass" in ended.err, ended
    assert lgg("evaluate", one).code == 0 and json.loads(path.read_text()) == scores


def test_an_ensemble_of_classifiers_is_refused(ensemble, lgg):
    path = Path(ensemble[1]) / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"task": "classification"}))
    ended = lgg("evaluate", *(f"--workdir={run}" for run in ensemble))
    assert (ended.code, ended.out) == (2, "")
    assert "only segmentation runs are scored as an ensemble" in ended.err
