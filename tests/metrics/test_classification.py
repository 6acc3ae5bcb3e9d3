"""Classification metrics: cases computed by hand, definitions, and a table of edge cases, tested row by row."""

import json
import time

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit
from sklearn.metrics import f1_score, roc_auc_score

from lgg_jax.errors import UserError
from lgg_jax.metrics.classification import (
    auc_with_ci,
    best_threshold,
    bootstrap_auc_ci,
    brier,
    calibration_bins,
    delong_ci,
    expected_calibration_error,
    logistic_baseline,
    patient_scores,
    resampled_curves,
    score,
    summarise,
)


def simulate(patients=30, rows=8, seed=0):
    """Labels, probabilities and patients of slices. Slices of a patient share a random effect; there are ties."""
    rng = np.random.default_rng(seed)
    owners = np.repeat([f"p{index:03}" for index in range(patients)], rows)
    labels = rng.random(len(owners)) < 0.4
    logits = 1.5 * labels - 0.7 + np.repeat(rng.normal(size=patients), rows) + rng.normal(size=len(owners))
    return labels.astype(int), np.round(expit(logits), 2), owners


def test_delong_by_hand():
    """Positives 0.9, 0.6, 0.4 exceed 2, 2, 1 of the negatives 0.5, 0.2: AUC 5/6, V10 = 1, 1, ½ and V01 = ⅔, 1.

    Var = (1/12) / 3 + (1/18) / 2 = 1/18. On the logit scale: ln 5 ± 1.96 · √(1/18) / (5/36) = 1.6094 ± 3.3263.
    """
    auc, interval = delong_ci([1, 0, 1, 1, 0], [0.9, 0.5, 0.6, 0.4, 0.2])
    assert auc == pytest.approx(5 / 6)
    assert interval == pytest.approx(expit([1.6094 - 3.3263, 1.6094 + 3.3263]), abs=1e-4)


@pytest.mark.parametrize("seed", range(3))
def test_delong_by_definition(seed):
    """The formulas of DeLong et al. over all m × n pairs."""
    labels, scores, _ = simulate(seed=seed)
    positive, negative = scores[labels == 1], scores[labels == 0]
    wins = (positive[:, None] > negative) + 0.5 * (positive[:, None] == negative)
    variance = wins.mean(1).var(ddof=1) / len(positive) + wins.mean(0).var(ddof=1) / len(negative)
    half = 1.644853627 * np.sqrt(variance) / (wins.mean() * (1 - wins.mean()))
    auc, interval = delong_ci(labels, scores, level=0.9)
    assert auc == pytest.approx(wins.mean()) == roc_auc_score(labels, scores)
    assert np.log(interval) - np.log1p(-np.array(interval)) == pytest.approx(
        np.log(wins.mean() / (1 - wins.mean())) + np.array([-half, half]))


def test_delong_on_the_logit_scale_has_the_nominal_coverage():
    """AUC 0.95 with 20 + 20 rows. Intervals without the logit scale cover it in 81 % of 300 trials, these in 96 %."""
    rng, hits = np.random.default_rng(0), 0
    for _ in range(300):
        scores = np.append(rng.normal(2.3262, size=20), rng.normal(size=20))
        low, high = delong_ci(np.repeat([1, 0], 20), scores)[1]
        hits += low <= 0.95 <= high
    assert 0.92 <= hits / 300 <= 0.98


@pytest.mark.parametrize("labels, expected", [([0, 0, 0, 1, 1], (1, [0.025 ** 0.5, 1])),
                                              ([1, 1, 0, 0, 0], (0, [0, 1 - 0.025 ** 0.5]))])
def test_delong_interval_of_perfect_separation_has_a_width(labels, expected):
    auc, interval = delong_ci(labels, np.arange(5))
    assert auc == expected[0] and interval == pytest.approx(expected[1])


def test_bootstrap_resamples_weight_the_rows():
    """The counts of a resample equal those of rows that are repeated as often as their patient was drawn."""
    labels, scores, patients = simulate(patients=6, rows=5)
    names, rng = np.unique(patients), np.random.default_rng(3)
    for tp, fp in resampled_curves(labels, scores, patients, seed=3, resamples=5):
        rows = np.concatenate([np.flatnonzero(patients == names[drawn]) for drawn in rng.integers(6, size=6)])
        area = np.trapezoid(tp, fp) / (tp[-1] * fp[-1])
        assert area == pytest.approx(roc_auc_score(labels[rows], scores[rows]))
        assert (tp[0], fp[0], tp[-1] + fp[-1]) == (0, 0, len(rows))


def test_bootstrap_resamples_patients_not_rows():
    """Repeating each row 50 times adds no information. DeLong's interval narrows, as it assumes independent rows."""
    labels, scores, patients = simulate(rows=1)
    once, repeated = [np.ptp(bootstrap_auc_ci(*(np.repeat(column, times) for column in (labels, scores, patients))))
                      for times in (1, 50)]
    assert repeated == pytest.approx(once)
    assert np.ptp(delong_ci(np.repeat(labels, 50), np.repeat(scores, 50))[1]) < once / 5


def test_bootstrap_depends_on_the_seed_and_not_on_the_order_of_rows():
    columns = simulate()
    shuffle = np.random.default_rng(0).permutation(len(columns[0]))
    assert bootstrap_auc_ci(*columns) == bootstrap_auc_ci(*(column[shuffle] for column in columns))
    assert bootstrap_auc_ci(*columns, seed=1) != bootstrap_auc_ci(*columns, seed=2)


def test_resamples_with_a_single_class_are_skipped():
    """With two positive and two negative patients, one resample in eight has a single class."""
    kept = list(resampled_curves([1, 1, 0, 0], [3, 1, 2, 0], list("abcd"), resamples=400))
    assert 320 < len(kept) < 380 and all(tp[-1] and fp[-1] for tp, fp in kept)


def test_bootstrap_of_3000_slices_is_quick():
    columns = simulate(patients=100, rows=30)
    start = time.process_time()
    bootstrap_auc_ci(*columns)
    assert time.process_time() - start < 2


def test_interval_is_delong_for_patients_and_bootstrap_for_slices():
    for rows, chosen in ((1, "auc_ci95_delong"), (8, "auc_ci95_bootstrap")):
        numbers = auc_with_ci(*simulate(rows=rows))
        assert numbers["auc_ci95"] == numbers[chosen] and numbers["auc_ci95_delong"] != numbers["auc_ci95_bootstrap"]


def test_calibration_by_hand():
    """Bin [0, ½] has 0 and ½, bin (½, 1] has 0.7 and 1. Sums of labels: 1 and 1; of probabilities: 0.5 and 1.7."""
    labels, probabilities = [0, 1, 0, 1], [0.0, 0.5, 0.7, 1.0]
    np.testing.assert_allclose(calibration_bins(labels, probabilities, bins=2), [[2, 2], [0.5, 1.7], [1, 1]])
    assert expected_calibration_error(labels, probabilities, bins=2) == pytest.approx((0.5 + 0.7) / 4)
    assert brier(labels, probabilities) == pytest.approx((0 + 0.25 + 0.49 + 0) / 4)


@pytest.mark.parametrize("labels, probabilities, expected", [
    ([0, 0, 1, 1], [0.1, 0.2, 0.3, 0.9], 0.25),
    ([0, 1, 0, 1], [0.1, 0.3, 0.6, 0.8], 0.7),      # 0.2 and 0.7 give three correct rows; 0.7 is closer to 0.5
    ([0, 1, 0], [0.3, 0.3, 0.6], 0.8),              # predicting no positives is best
    ([1, 1], [0.2, 0.4], 0.1),
    ([0, 0], [0.2, 0.9], 0.95),
    ([0, 1], [0.0, 1.0], 0.5),
    ([0, 1], [1.0, 1.0], 0.5),
])
def test_best_threshold(labels, probabilities, expected):
    assert best_threshold(labels, probabilities) == pytest.approx(expected)


def test_best_threshold_against_every_threshold():
    labels, probabilities, patients = simulate()
    best = score(labels, probabilities, patients, best_threshold(labels, probabilities))["accuracy"]
    assert best == max(np.mean((probabilities >= limit) == labels) for limit in np.linspace(0, 1, 2001))


def test_score_by_hand():
    """A row at the threshold counts as positive. All rows of patient a are correct, none of patient b."""
    result = score([1, 1, 1, 0, 0, 0, 0], [0.9, 0.5, 0.4, 0.7, 0.2, 0.1, 0.8], list("aabbccc"), 0.5)
    expected = {"accuracy": 4 / 7, "majority_accuracy": 4 / 7, "f1": 4 / 7, "sensitivity": 2 / 3, "specificity": 1 / 2,
                "auc": 8 / 12, "brier": 1.8 / 7, "n": 7, "n_positive": 3, "n_patients": 3}
    assert {name: result[name] for name in expected} == pytest.approx(expected)
    assert result["confusion"] == {"tp": 2, "fp": 2, "fn": 1, "tn": 2}
    assert result["accuracy_ci95"] == [0, 1]


def test_single_precision_does_not_move_a_score_across_the_threshold():
    assert score([0, 1], np.float32([0.1, 0.3]), ["a", "b"], 0.300000015)["confusion"]["tp"] == 0


def test_score_agrees_with_scikit_learn():
    labels, probabilities, patients = simulate()
    assert score(labels, probabilities, patients, 0.4)["f1"] == f1_score(labels, probabilities >= 0.4)


UNDEFINED_AUC = {"auc": None, "auc_ci95": None, "auc_ci95_delong": None, "auc_ci95_bootstrap": None}

# labels, probabilities, patients, expected values: the table in the docstring of `score`
TABLE = {
    "only positives": ([1, 1], [0.2, 0.8], "ab", {**UNDEFINED_AUC, "specificity": None, "f1": pytest.approx(2 / 3)}),
    "only negatives": ([0, 0], [0.2, 0.8], "ab", {**UNDEFINED_AUC, "sensitivity": None, "f1": 0}),
    "only negatives, none predicted": ([0, 0], [0.2, 0.3], "ab", {**UNDEFINED_AUC, "sensitivity": None, "f1": None}),
    "a class with one row": ([0, 0, 1], [0.1, 0.4, 0.3], "abc",
                             {"auc": 0.5, "auc_ci95": None, "auc_ci95_delong": None, "auc_ci95_bootstrap": None}),
    "a class in one patient": ([0, 0, 1, 1], [0.1, 0.4, 0.3, 0.5], "abcc", {"auc": 0.75, "auc_ci95": None}),
    "one patient": ([0, 0, 1, 1], [0.1, 0.4, 0.3, 0.5], "aaaa",
                    {"auc": 0.75, "auc_ci95": None, "accuracy_ci95": None, "n_patients": 1}),
    "all scores equal": ([0, 0, 1, 1], [0.6] * 4, "abcd",
                         {"auc": 0.5, "auc_ci95_delong": [0.5, 0.5], "auc_ci95_bootstrap": [0.5, 0.5]}),
    "perfect separation": ([0, 0, 1, 1], [0.1, 0.2, 0.6, 0.7], "abcd",
                           {"auc": 1, "auc_ci95": [pytest.approx(0.025 ** 0.5), 1], "auc_ci95_bootstrap": [1, 1]}),
}


@pytest.mark.parametrize("row", TABLE.values(), ids=TABLE.keys())
def test_edge_cases(row):
    labels, probabilities, patients, expected = row
    result = json.loads(json.dumps(score(labels, probabilities, list(patients), 0.5), allow_nan=False))
    assert {name: result[name] for name in expected} == expected


@pytest.mark.parametrize("patients", ["abcc", "aaaa"])
def test_delong_is_defined_if_a_class_has_one_patient(patients):
    low, high = auc_with_ci([0, 0, 1, 1], [0.1, 0.4, 0.3, 0.5], list(patients))["auc_ci95_delong"]
    assert 0 < low < 0.75 < high < 1


@pytest.mark.parametrize("labels, scores, message", [
    ([], [], "no row"), ([0, 1], [0.5], "shape"), ([0, 2], [0.5, 0.5], "0 or 1"), ([0, np.nan], [0.5, 0.5], "0 or 1"),
    ([0, 1], [0.5, np.nan], "1 of 2 scores"), ([0, 1], [-3, 2], "logits"),
])
def test_invalid_labels_and_scores(labels, scores, message):
    with pytest.raises(ValueError, match=message):
        score(labels, scores, ["a"] * len(labels), 0.5)


def test_labels_and_patients_of_different_length():
    with pytest.raises(ValueError, match="4 labels, but 3 patients"):
        bootstrap_auc_ci([0, 0, 1, 1], [1, 2, 3, 4], list("abc"))


def test_summarise():
    slices = pd.DataFrame(dict(zip(("label", "probability", "patient"), simulate(), strict=True)))
    patients = slices.groupby("patient", as_index=False).max()
    result = summarise(slices, patients, np.float32(0.25), 0.75)
    assert set(result) == {"slice", "patient", "majority_accuracy", "threshold", "patient_threshold"}
    assert result["slice"] == score(*simulate(), 0.25) and result["slice"]["n"] == 240
    assert result["patient"]["n"] == result["patient"]["n_patients"] == 30
    assert result["patient"]["confusion"]["tp"] == ((patients["probability"] >= 0.75) & patients["label"]).sum()
    assert result["majority_accuracy"] == result["slice"]["majority_accuracy"]
    assert (result["threshold"], result["patient_threshold"]) == (0.25, 0.75)
    json.dumps(result, allow_nan=False)


def test_summarise_empty_tables():
    empty = pd.DataFrame({"patient": [], "label": [], "probability": []})
    with pytest.raises(UserError, match="no slice"):
        summarise(empty, empty, 0.5, 0.5)


def test_patient_scores():
    """The logit of b is the mean over its slices with tumour. a has no such slice, so all its slices count."""
    slices = pd.DataFrame({"patient": list("bbbaa"), "logit": np.float32([1, 3, -9, 2, -4]), "label": [1, 1, 0, 0, 0],
                           "tumour_slice": [True, True, False, False, False]})
    expected = pd.DataFrame({"patient": ["a", "b"], "label": [0, 1], "logit": [-1.0, 2.0],
                             "probability": [1 / (1 + np.e), 1 / (1 + np.exp(-2))]})
    pd.testing.assert_frame_equal(patient_scores(slices), expected)


def patients_table(count=200, seed=0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    label = rng.integers(2, size=count)
    age = np.where(rng.random(count) < 0.2, np.nan, 45 + 8 * label + 5 * rng.normal(size=count))
    return pd.DataFrame({"age": age, "tumour_area": rng.lognormal(6, 1, count), "label": label})


def test_logistic_baseline_predicts_and_does_not_depend_on_units():
    train, test = patients_table(), patients_table(seed=1)
    probabilities = logistic_baseline(train, test)
    assert probabilities.shape == (200,) and probabilities.dtype == np.float64
    assert delong_ci(test["label"], probabilities)[0] > 0.75
    scaled = [table.assign(tumour_area=table["tumour_area"] * 1e4) for table in (train, test)]
    np.testing.assert_allclose(logistic_baseline(*scaled), probabilities, atol=1e-6)


def test_logistic_baseline_uses_whether_a_value_is_missing():
    train = pd.DataFrame({"age": [np.nan, 40.0] * 20, "tumour_area": 1.0, "label": [1, 0] * 20})
    assert np.all((logistic_baseline(train, train) > 0.5) == train["label"])


def test_logistic_baseline_with_missing_values():
    """A column without values, one with missing values only in the test set, nullable integers: no warning, no NaN."""
    train = patients_table().assign(age=np.nan)
    test = pd.DataFrame({"age": pd.array([50, None], "Int64"), "tumour_area": [np.nan, 10]})
    assert np.isfinite(logistic_baseline(train, test)).all()


def test_logistic_baseline_of_one_class():
    with pytest.raises(ValueError, match="class"):
        logistic_baseline(patients_table().assign(label=1), patients_table())
