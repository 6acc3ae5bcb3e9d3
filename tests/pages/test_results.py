"""Scores and settings of an evaluation on the page of `report`."""

import types

import pytest
from page_parser import Page

from lgg_jax.pages import results as report_results


def test_a_baseline_has_its_own_rows():
    part = {"auc": 0.7, "auc_ci95": [0.5, 0.9], "n": 9, "accuracy": 0.6}
    metrics = {"task": "classification", "baselines": {"majority": {"accuracy": 0.5}, "age": part}}
    table = Page(report_results.scores({"a": metrics}, "classification", {})).table("Classification")
    column = table.set_index("metric")["a"]
    assert column["AUC, per patient, logistic regression on age"] == "0.700 [0.500, 0.900], n = 9"
    assert column["AUC, per slice"] == "–" and not any("on majority" in row for row in column.index)


@pytest.mark.parametrize("metrics, settings", [
    ({"postprocessing": {"flip_tta": True, "threshold": 0.4, "finer": [16, 32]}},
     "test-time augmentation (mirrored) on, threshold 0.4, multi-scale inference also at 16 and 32 pixels."),
    ({"postprocessing": {"fill_holes": False, "threshold": 0.5, "finer": []}}, "hole filling off, threshold 0.5."),
    ({"segmentation": {"postprocessing": {"flip_tta": True}}}, "test-time augmentation (mirrored) on."),
    ({"threshold": 0.25, "patient_threshold": 0.5}, "threshold 0.25, patient threshold 0.5."),
    ({}, None),
    ({"threshold": 0.5, "patient_threshold": 0.5, "step": None}, None),  # pooled folds: 0.5 was not selected
])  # fmt: skip
def test_the_post_processing_is_stated(metrics, settings, tmp_path):
    metrics = {"task": "none", "split": "test", "dataset": "D", "step": 1500} | metrics
    run = types.SimpleNamespace(splits={}, config={})
    if metrics["step"] is None:
        del metrics["step"]
    one = types.SimpleNamespace(metrics=metrics, folder=tmp_path, tables={}, results=dict)
    several = "Several runs (an ensemble or cross-validation folds)"
    model = "Checkpoint of step 1,500" if "step" in metrics else several
    expected = f"{model}, evaluated on split “test” of D."
    if settings:
        expected += f" Post-processing, fixed by the config or selected on the validation set: {settings}"
    assert Page("".join(report_results.evaluation(run, one))).texts[0] == expected
