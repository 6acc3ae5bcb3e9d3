"""The numbers of evaluations, as tables and sentences."""

import types

import pytest
from page_parser import Page

from lgg_jax.pages import results as report_results


def test_a_baseline_has_rows_of_its_own():
    part = {"auc": 0.7, "auc_ci95": [0.5, 0.9], "n": 9, "accuracy": 0.6}
    metrics = {"task": "classification", "baselines": {"majority": {"accuracy": 0.5}, "age": part}}
    table = Page(report_results.headline({"a": metrics}, "classification", {})).table("Classification")
    column = table.set_index("measure")["a"]
    assert column["AUC, per patient, of age alone"] == "0.700 [0.500, 0.900], n = 9"
    assert column["AUC, per slice"] == "–" and not any("majority" in row for row in column.index)


@pytest.mark.parametrize("metrics, said", [
    ({"postprocessing": {"flip_tta": True, "threshold": 0.4, "finer": [16, 32]}},
     "flip tta on, threshold 0.4, finer 16 + 32."),
    ({"postprocessing": {"fill_holes": False, "threshold": 0.5, "finer": []}}, "fill holes off, threshold 0.5."),
    ({"segmentation": {"postprocessing": {"flip_tta": True}}}, "flip tta on."),
    ({"threshold": 0.25, "patient_threshold": 0.5}, "threshold 0.25, patient threshold 0.5."),
    ({}, None),
    ({"threshold": 0.5, "patient_threshold": 0.5, "step": None}, None),  # folds pooled: nobody chose 0.5
])  # fmt: skip
def test_how_probabilities_became_answers(metrics, said, tmp_path):
    metrics = {"task": "none", "split": "test", "dataset": "D", "step": 1500} | metrics
    run = types.SimpleNamespace(splits={}, config={})
    if metrics["step"] is None:
        del metrics["step"]
    one = types.SimpleNamespace(metrics=metrics, folder=tmp_path, tables={}, results=dict)
    source = "checkpoint of step 1,500" if "step" in metrics else "several runs together"
    expected = f"Split “test” of D, {source}."
    if said:
        expected += f" Post-processing, fixed by the config or chosen on validation: {said}"
    assert Page("".join(report_results.evaluation(run, one))).texts[0] == expected
