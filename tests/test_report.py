"""The verb `report`: its page compared with the files of the workdirs, missing results, and the page in a browser."""

import html
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from absl import flags
from page_parser import Page, in_browser
from presence_run import presence_run

from configs import default, seed_paper, seed_paper_finetune
from lgg_jax import config as config_lib
from lgg_jax import evaluate, report, workdir
from lgg_jax.errors import UserError
from lgg_jax.pages import results as report_results
from lgg_jax.pages import runs

PEOPLE = [f"00{index}" for index in range(8)]  # identifiers that must stay text


def written(output: Path) -> str:
    return (output / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def classifier(tmp_path_factory) -> Path:
    return presence_run(tmp_path_factory.mktemp("classifier") / "presence", PEOPLE)


@pytest.fixture(scope="module")
def first(trained, tmp_path_factory) -> Path:
    """A run trained on phantoms, with two evaluations."""
    folder = Path(shutil.copytree(trained, tmp_path_factory.mktemp("first") / "first"))
    evaluate.evaluate(folder, "validation")
    evaluate.evaluate(folder, "train")
    return folder


@pytest.fixture(scope="module")
def second(first, tmp_path_factory) -> Path:
    """A run initialised from `first`, by a version that recorded no software versions, without an evaluation."""
    folder = Path(shutil.copytree(first, tmp_path_factory.mktemp("second") / "second"))
    shutil.rmtree(folder / "eval")
    (folder / "versions.json").unlink()
    config = json.loads((folder / "config.json").read_text())
    workdir.write_json(folder / "config.json", config | {"init_from": str(first), "seed": 7})
    return folder


@pytest.fixture(scope="module")
def output(first, second, classifier, tmp_path_factory) -> Path:
    """The output folder of the verb for all three runs, called with command-line flags."""
    folder, values = tmp_path_factory.mktemp("report"), flags.FlagValues()
    report.define_flags(values)
    values(["report", *(f"--workdir={path}" for path in (first, second, classifier)), f"--output={folder}"])
    assert report.main(values) == 0
    return folder


@pytest.fixture(scope="module")
def shown(output) -> Page:
    return Page(written(output))


def metrics_of(folder: Path, name: str) -> dict:
    return json.loads((folder / "eval" / name / "metrics.json").read_text())


def with_ci(value: float, interval, n: int) -> str:
    return f"{value:.3f}" + (" [{:.3f}, {:.3f}]".format(*interval) if interval else "") + f", n = {n}"


@pytest.mark.parametrize("name", ["validation", "train"])
def test_segmentation_scores_agree_with_metrics_json(shown, first, name):
    column = shown.table("Segmentation.").set_index("metric")[f"first, {name}"]
    metrics = metrics_of(first, name)
    means = {"volume Dice, mean": "volume_dice", "sensitivity, mean": "sensitivity",
             "slice Dice, slices with tumour": "slice_dice_tumour", "slice Dice, all slices": "slice_dice_all"}
    for label, key in means.items():
        part = metrics[key]
        assert column[label] == with_ci(part["mean"], part["ci95"], part["n"])
    assert column["volume Dice, median"] == f"{metrics['volume_dice']['median']:.3f}"
    assert column["HD95 in pixels, median"] == f"{metrics['hd95_px']['median']:.1f}"
    assert column["– all-background baseline, all slices"] == f"{metrics['all_background_slice_dice']:.3f}"
    assert column["– all-background baseline"] == "0.000"
    assert f"{metrics['volume_dice']['mean']:.3f}" in shown.texts  # the tile


def test_classification_scores_agree_with_metrics_json(shown, classifier):
    column = shown.table("Classification.").set_index("metric")["presence, test"]
    metrics = metrics_of(classifier, "test")
    for level in ("slice", "patient"):
        part = metrics[level]
        assert column[f"accuracy, per {level}"] == with_ci(part["accuracy"], part["accuracy_ci95"], part["n"])
        assert column[f"– majority-class baseline, per {level}"] == f"{part['majority_accuracy']:.3f}"
        assert column[f"Brier score, per {level}"] == f"{part['brier']:.3f}"
        assert column[f"expected calibration error, per {level}"] == f"{part['ece']:.3f}"
    auc = metrics["slice"]
    assert column["AUC, per slice"] == with_ci(auc["auc"], auc["auc_ci95"], auc["n"])
    assert column["AUC, per patient"] == "–"  # every patient has tumour
    low, high = auc["auc_ci95"]
    tile = f"presence, test: AUC of 24 slices, 95% CI {low:.3f} to {high:.3f} (chance level: 0.5)"
    assert tile in shown.texts and f"{auc['auc']:.3f}" in shown.texts


def test_a_joint_task_has_both_kinds_of_scores(first, classifier):
    both = {"segmentation": metrics_of(first, "train"), "classification": metrics_of(classifier, "test")}
    one = runs.Evaluation("test", first, {"task": "joint", "target": "grade", **both}, {}, [])
    assert one.results() == both
    (dice, value), (auc, undefined) = report_results.tiles(one)
    assert dice.startswith("mean volume Dice of 6 patients, 95% CI")
    assert value == f"{both['segmentation']['volume_dice']['mean']:.3f}"
    assert auc == "AUC of 8 patients (chance level: 0.5)" and undefined == "–"


@pytest.fixture(scope="module")
def alone(first, tmp_path_factory) -> Page:
    """The report of the first run with only the evaluation of its training patients."""
    folder = tmp_path_factory.mktemp("alone")
    run = Path(shutil.copytree(first, folder / "run"))
    shutil.rmtree(run / "eval" / "validation")
    return Page(written(report.report([run], folder).parent))


def test_subgroups_agree_with_metrics_json(alone, first):
    metrics, rows = metrics_of(first, "train"), alone.values("Subgroups")
    expected = [part["volume_dice"] for group in metrics["subgroups"].values() for part in group.values()]
    expected = [[d["n"], d["mean"], *(d["ci95"] or (np.nan, np.nan)), d["median"]] for d in expected]
    assert len(expected) > 4
    np.testing.assert_array_equal(rows[["n", "mean", "CI from", "CI to", "median"]].astype(float), expected)


def test_cases_agree_with_cases_csv(alone, first, classifier, tmp_path):
    shown = alone.values("All cases")
    cases = pd.read_csv(first / "eval" / "train" / "cases.csv")
    assert list(shown["patient"]) == list(cases["patient"])
    for name, field in (("volume Dice", "volume_dice"), ("HD95 (px)", "hd95_px"), ("tumour pixels", "tumour_pixels")):
        np.testing.assert_array_equal(shown[name].astype(float), cases[field])
    named = Page(written(report.report([classifier], tmp_path).parent)).values("All cases")
    assert list(named["patient"]) == PEOPLE and set(named["institution"]) == {"NA"}


def test_every_picture_is_a_file(shown, output, first, classifier):
    files = {path: path.read_bytes() for folder in (output, first, classifier) for path in folder.rglob("*.png")}
    assert set(shown.pictures) <= set(files.values())
    absent = sorted(path.name for path, data in files.items() if data not in shown.pictures)
    assert absent == ["overlays.png", "overlays.png"]  # the page shows these cases as layers
    assert shown.boxes == 2 * 2 * 3


def test_learning_curves_for_each_task(output):
    names = {path.name for path in (output / "figures").iterdir()}
    assert names == {"segmentation_train_loss.png", "segmentation_validation_volume_dice.png",
                     "segmentation_validation_volume_dice_min.png"}  # fmt: skip


def test_missing_results_are_stated(shown, second, classifier, trained, tmp_path):
    text = " ".join(shown.texts)
    assert f"second has not been evaluated yet: python -m lgg_jax evaluate --workdir={second}" in text
    assert "presence has no logs/metrics.jsonl." in text
    assert "Software versions were not recorded by: second." in text
    versions = shown.table("Data of the runs").set_index("")
    assert versions.loc["jax", "second"] == "not recorded" and versions.loc["jax", "first"][0].isdigit()
    assert "12 patients" in versions.loc["data", "first"] and list(versions.loc["patients: train"]) == ["6", "6", "1"]
    begun = Path(shutil.copytree(trained, tmp_path / "begun", ignore=shutil.ignore_patterns("logs", "post*")))
    text = " ".join(Page(written(report.report([begun], tmp_path).parent)).texts)
    assert "begun: the training has not finished." in text and "begun has no logs/metrics.jsonl." in text


def test_biases_are_stated(shown):
    text = " ".join(shown.texts)
    assert "were selected on these patients" in text and "was trained on these patients" in text
    assert "other slices of these patients leak into training" in text and "n = 8 patients: with fewer than 30" in text
    assert "Not a medical device" in text


def test_the_training_patients_in_another_folder_are_stated(first, tmp_path):
    """`evaluate --data_dir` counts patients of the training and validation sets, whatever the folder."""
    run = Path(shutil.copytree(first, tmp_path / "run"))
    shutil.rmtree(run / "eval" / "validation")
    path = run / "eval" / "train" / "metrics.json"
    metrics = json.loads(path.read_text()) | {"split": "all", "dataset": "elsewhere"}
    for count, stated in ((2, True), (0, False)):
        path.write_text(json.dumps(metrics | {"patients_trained_or_validated_on": count}))
        text = " ".join(Page(written(report.report([run], tmp_path / f"report{count}").parent)).texts)
        assert ("was trained on these patients" in text) == stated


def test_scores_of_the_starting_report_are_only_shown_for_its_protocol(shown):
    rows = shown.table("Classification.").set_index("metric")["presence, test"]
    assert list(rows[rows.index.str.startswith("report this project started from")]) == ["0.8804", "0.9543"]
    assert not shown.table("Segmentation.")["metric"].str.contains("started from").any()


def test_before_and_after_are_side_by_side(first, tmp_path):
    folders = []
    for name, module in (("before", seed_paper), ("after", seed_paper_finetune)):
        folders.append(Path(shutil.copytree(first, tmp_path / name)))
        config = module.get_config()
        config.init_from = "" if name == "before" else str(folders[0])
        (folders[-1] / "config.json").write_text(config.to_json())
        shutil.rmtree(folders[-1] / "eval" / "train")
    shown = Page(written(report.report(folders, tmp_path / "out").parent))
    table = shown.table("Segmentation.")
    assert list(table) == ["metric", "before, validation", "after, validation"]
    assert list(table.iloc[-1])[1:] == ["0.0711", "0.3854"]
    assert f"after was initialised with the best weights of {folders[0]}." in " ".join(shown.texts)


def test_changed_fields_come_first(shown):
    changed = shown.table("Fields in which a run differs").set_index("config field")
    assert list(changed.loc["seed"]) == ["0", "7", "0", "0"]
    assert changed.loc["model.levels", ["first", "configs/default.py"]].to_list() == ["3", "5"]
    others = shown.table("All other fields")
    assert "eval.flip_tta" in set(others["config field"]) and not set(changed.index) & set(others["config field"])
    assert len(changed) + len(others) == len(config_lib.fields_of(default.get_config()))


def test_runs_with_equal_names_are_named_by_their_paths(first, second, tmp_path):
    twin = Path(shutil.copytree(second, tmp_path / "first"))
    shown = Page(written(report.report([first, twin, first], tmp_path).parent))
    assert list(shown.table("Data of the runs")) == ["", str(first), str(twin)]


def test_an_older_evaluation_has_one_picture_without_layers(first, tmp_path):
    old = Path(shutil.copytree(first, tmp_path / "old"))
    shutil.rmtree(old / "eval" / "validation" / "figures" / "cases")
    shown = Page(written(report.report([old], tmp_path).parent))
    assert (old / "eval" / "validation" / "figures" / "overlays.png").read_bytes() in shown.pictures
    step = metrics_of(old, "validation")["step"]
    command = f"evaluate --workdir={old} --split=validation --step={step} --name=validation"
    assert command in " ".join(shown.texts)


def test_bad_input_is_one_line(first, tmp_path):
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(UserError, match=r"config.json .*; pass the --workdir of a training run"):
            report.report([folder], tmp_path / "out")
    (tmp_path / "config.json").write_text('{"architectures": []}')
    with pytest.raises(UserError, match="is not the config of a training run"):
        report.report([tmp_path], tmp_path / "out")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot write to .*; choose another --output"):
        report.report([first], tmp_path / "file")
    broken = Path(shutil.copytree(first, tmp_path / "broken"))
    (broken / "eval" / "train" / "metrics.json").write_text("{")
    with pytest.raises(UserError, match=r"metrics.json .*; run the command"):
        report.report([broken], tmp_path / "out")


def test_the_page_in_a_browser(output, tmp_path):
    """A checkbox hides only its contour, a click sorts the cases, and the page has no external resource."""
    found = in_browser(written(output), """
      const figure = document.querySelector(".layers"), boxes = [...figure.querySelectorAll("input")];
      const visible = () => [...figure.querySelectorAll("img")].map(image => image.getClientRects().length > 0);
      const images = [...figure.querySelectorAll("img")].map(image => image.getBoundingClientRect());
      const same = images.every(one => one.width === images[0].width && one.top === images[0].top);
      const states = [visible()];
      for (const box of [boxes[0], boxes[1], boxes[0]]) { box.click(); states.push(visible()); }
      const table = [...document.querySelectorAll(".table")].find(one => one.textContent.startsWith("All cases"));
      const heads = [...table.querySelectorAll("th")], head = heads.find(one => one.textContent === "volume Dice");
      head.querySelector("button").click();
      const rows = [...table.querySelectorAll("tbody tr")];
      return {states, same, order: rows.map(row => +row.cells[head.cellIndex].dataset.value)};
    """, tmp_path)  # fmt: skip
    assert found["states"] == [[True, True, True], [True, False, True], [True, False, False], [True, True, False]]
    assert found["same"]
    assert found["order"] == sorted(found["order"]) and len(found["order"]) > 1
    text = re.sub(r'src="data:[^"]*"', "", written(output))
    assert not re.search(r"https?://|src=|@import|url\(", text)


def test_the_page_on_a_phone(output, tmp_path):
    framed = f'<iframe style="border:0" width="390" height="800" srcdoc="{html.escape(written(output))}"></iframe>'
    found = in_browser(f"<html><head><style></style></head><body>{framed}</body></html>", """
      const root = document.querySelector("iframe").contentDocument.documentElement;
      const number = root.querySelector("tbody td:nth-child(2)").getBoundingClientRect();
      return {window: root.clientWidth, page: root.scrollWidth, right: number.right};
    """, tmp_path)  # fmt: skip
    assert found["window"] == found["page"] == 390
    assert found["right"] < 390  # the first number is visible without scrolling
