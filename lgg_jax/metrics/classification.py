"""Scores of a yes-or-no classifier, per slice and per patient: the body of a classification metrics.json.

    patients = patient_scores(slices)                                        # mean logit over tumour slices
    threshold = best_threshold(validation["label"], validation["probability"])
    metrics = summarise(slices, patients, threshold, patient_threshold)      # ready for json.dumps
    delong_ci(labels, scores), bootstrap_auc_ci(labels, scores, patients)    # AUC: rows as independent, or by patient

What `score` gives where a number is undefined (None, never NaN) or easily misread:

    case                     auc    auc_ci95_delong          auc_ci95_bootstrap   other
    only positives           None   None                     None                 specificity None
    only negatives           None   None                     None                 sensitivity None; f1 None if all "no"
    a class with one row     given  None                     None
    a class in one patient   given  given                    None
    one patient              given  given                    None                 accuracy_ci95 None
    all scores equal         0.5    [0.5, 0.5]               [0.5, 0.5]
    perfect separation       1      [0.025 ** (1 / k), 1]    [1, 1]               k: rows of the smaller class
    no row                   ValueError, from `summarise` UserError

A row is called positive when its probability is at or above the threshold.
"""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from scipy.special import expit, logit
from scipy.stats import norm, rankdata
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from lgg_jax.errors import UserError
from lgg_jax.metrics.intervals import bootstrap_ci
from lgg_jax.metrics.overlap import confusion


def delong_ci(labels, scores, level=0.95) -> tuple[float | None, list[float] | None]:
    """AUC with the interval of DeLong, DeLong and Clarke-Pearson (1988), by midranks (Sun and Xu 2014).

    With V10 a positive row's share of negatives below it (ties count half) and V01 a negative row's share of positives
    above it, AUC = mean(V10) and its variance is var(V10) / m + var(V01) / n. The interval is symmetric for logit(AUC):
    it stays within [0, 1] and covers better (simulated normal scores, AUC 0.95, nominal 95 %: with 44 + 43 rows 94 %
    against 89 % of AUC ± 1.96 SE; with 9 + 9 rows 98 % against 66 %). Perfect separation has no variance to go by;
    its bound is then that of the k disjoint pairs (k: the smaller class), all right with a chance of AUC ** k.

    Rows are taken as independent: right for patients, far too narrow for slices.

    Args:
      labels, scores: (row,) 0/1 or bool; any finite numbers, higher means more likely positive.

    Returns:
      AUC, None when a class is missing; [low, high], None also when a class has one row.
    """
    labels, scores = _checked(labels, scores)
    positive, negative = scores[labels], scores[~labels]
    m, n = len(positive), len(negative)
    if not m or not n:
        return None, None
    ranks = rankdata(np.concatenate([positive, negative]))
    v10 = (ranks[:m] - rankdata(positive)) / n
    v01 = 1 - (ranks[m:] - rankdata(negative)) / m
    auc = float(v10.mean())
    if min(m, n) < 2:
        return auc, None
    if auc in (0, 1):
        bound = ((1 - level) / 2) ** (1 / min(m, n))
        return auc, [bound, 1.0] if auc else [0.0, 1 - bound]
    error = np.sqrt(v10.var(ddof=1) / m + v01.var(ddof=1) / n) / (auc * (1 - auc))
    half = norm.ppf((1 + level) / 2) * error
    return auc, [float(expit(logit(auc) + side)) for side in (-half, half)]


def bootstrap_auc_ci(labels, scores, patients, seed=0, resamples=2000, level=0.95) -> list[float] | None:
    """Percentile interval of the AUC when patients are resampled, each with all its rows.

    Resamples that lack a class have no AUC and are left out. None where a class lies in fewer than two patients.
    Simulated slices, nominal 95 %: where all slices of a patient have its label, as with grade, it covered 92 % with 18
    or 88 patients (DeLong 39 %); where they differ, as with presence, 88 and 93 % (83 and 81 %).
    """
    areas = [np.trapezoid(tp, fp) / (tp[-1] * fp[-1])
             for tp, fp in resampled_curves(labels, scores, patients, seed, resamples)]
    return np.quantile(areas, [(1 - level) / 2, (1 + level) / 2]).tolist() if areas else None


def resampled_curves(labels, scores, patients, seed=0, resamples=2000) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """For each bootstrap resample of the patients the counts that ROC and precision–recall curves are made of.

    Args:
      labels, scores, patients: (row,); the patients' names decide the order of drawing, not the order of the rows.

    Yields:
      tp, fp: (1 + distinct score,) positives and negatives at or above each score, from the highest; both start at 0.
      Nothing for a resample that lacks a class, nothing at all where a class lies in fewer than two patients.
    """
    labels, scores = _checked(labels, scores)
    names, owners = np.unique(np.asarray(patients), return_inverse=True)
    if len(owners) != len(labels):
        raise ValueError(f"{len(labels)} labels, but {len(owners)} patients")
    if min(len(np.unique(owners[labels])), len(np.unique(owners[~labels]))) < 2:
        return
    order = np.argsort(-scores, kind="stable")
    labels, owners, last_of_ties = labels[order], owners[order], np.append(np.diff(scores[order]) != 0, True)
    rng = np.random.default_rng(seed)
    for _ in range(resamples):
        drawn = np.bincount(rng.integers(len(names), size=len(names)), minlength=len(names))[owners]
        above, tp = np.cumsum(drawn)[last_of_ties], np.cumsum(drawn * labels)[last_of_ties]
        if 0 < tp[-1] < above[-1]:
            yield np.append(0, tp), np.append(0, above - tp)


def auc_with_ci(labels, scores, patients) -> dict:
    """{"auc", "auc_ci95", "auc_ci95_delong", "auc_ci95_bootstrap"}.

    `auc_ci95` is DeLong's when every patient has one row, the patient bootstrap's when one has several.
    """
    auc, delong = delong_ci(labels, scores)
    bootstrap = bootstrap_auc_ci(labels, scores, patients)
    one_row_each = len(np.unique(np.asarray(patients))) == len(labels)
    return {"auc": auc, "auc_ci95": delong if one_row_each else bootstrap,
            "auc_ci95_delong": delong, "auc_ci95_bootstrap": bootstrap}


def brier(labels, probabilities) -> float:
    """mean((probability - label)²) (Brier 1950); 0 is best, always saying 0.5 scores 0.25."""
    labels, probabilities = _checked(labels, probabilities, probability=True)
    return float(brier_score_loss(labels, probabilities, pos_label=True))


def calibration_bins(labels, probabilities, bins=10) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows, sum of probabilities and number of positives, each (bin,), in equal-width bins (0, 0.1], (0.1, 0.2], …

    A probability of 0 belongs to the first bin.
    """
    labels, probabilities = _checked(labels, probabilities, probability=True)
    index = np.searchsorted(np.linspace(0, 1, bins + 1)[1:-1], probabilities, side="left")
    count = np.bincount(index, minlength=bins)
    return count, np.bincount(index, probabilities, bins), np.bincount(index, labels, bins)


def expected_calibration_error(labels, probabilities, bins=10) -> float:
    """Σ_b (n_b / n) · |share of positives in b - mean probability in b| over equal-width bins (Guo et al. 2017).

    Guo et al. bin the confidence in the predicted class; with two classes this is the form for the positive one.
    """
    count, expected, positives = calibration_bins(labels, probabilities, bins)
    return float(np.abs(positives - expected).sum() / count.sum())


def best_threshold(labels, probabilities) -> float:
    """The threshold with the highest accuracy, to be chosen on validation; of equally good ones that nearest to 0.5.

    Candidates are the midpoints between neighbouring distinct probabilities, with 0 and 1 as the outermost neighbours.
    """
    labels, probabilities = _checked(labels, probabilities, probability=True)
    levels = np.unique([0.0, *probabilities, 1.0])
    candidates = (levels[:-1] + levels[1:]) / 2
    positive, negative = np.sort(probabilities[labels]), np.sort(probabilities[~labels])
    correct = len(positive) - np.searchsorted(positive, candidates) + np.searchsorted(negative, candidates)
    best = candidates[correct == correct.max()]
    return float(best[np.abs(best - 0.5).argmin()])


def score(labels, probabilities, patients, threshold: float) -> dict:
    """All numbers of one level, ready for `json.dumps(..., allow_nan=False)`; the module's table has the edge cases.

    Args:
      labels, probabilities, patients: (row,) 0/1, [0, 1], names; several rows of a patient are resampled together.

    Raises:
      ValueError: no row, lengths that differ, labels other than 0/1, probabilities outside [0, 1].
    """
    labels, probabilities = _checked(labels, probabilities, probability=True)
    predicted = probabilities >= threshold
    tp, fp, fn, tn = (int(count) for count in confusion(predicted, labels))
    right = pd.Series(predicted == labels).groupby(np.asarray(patients))
    return {
        "accuracy": (tp + tn) / len(labels),
        "accuracy_ci95": bootstrap_ci(right.sum(), right.size()),
        "majority_accuracy": max(tp + fn, tn + fp) / len(labels),
        "f1": _ratio(2 * tp, 2 * tp + fp + fn),
        "sensitivity": _ratio(tp, tp + fn),
        "specificity": _ratio(tn, tn + fp),
        **auc_with_ci(labels, probabilities, patients),
        "brier": brier(labels, probabilities),
        "ece": expected_calibration_error(labels, probabilities),
        "n": len(labels),
        "n_positive": tp + fn,
        "n_patients": right.ngroups,
        "confusion": {"tp": tp, "fp": fp, "fn": fn, "tn": tn},
    }


def summarise(slices: pd.DataFrame, patients: pd.DataFrame, threshold: float, patient_threshold: float) -> dict:
    """The numbers of a classification metrics.json.

    `majority_accuracy` at the top is that of the slices; each part has its own.

    Args:
      slices: columns patient, label, probability; a row a slice.
      patients: the same columns; a row a patient.

    Raises:
      UserError: nothing to score.
    """
    if slices.empty or patients.empty:
        raise UserError("no slice of this split has a label to score", "choose another split, target or data set")
    parts = {name: score(table["label"], table["probability"], table["patient"], limit)
             for name, table, limit in (("slice", slices, threshold), ("patient", patients, patient_threshold))}
    return {**parts, "majority_accuracy": parts["slice"]["majority_accuracy"],
            "threshold": float(threshold), "patient_threshold": float(patient_threshold)}


def patient_scores(slices: pd.DataFrame) -> pd.DataFrame:
    """A row a patient: the mean logit over its tumour slices (over all where it has none), the highest label.

    Args:
      slices: columns patient, logit, label and tumour_slice (bool: this slice is known or predicted to show tumour).

    Returns:
      Columns patient, label, logit, probability; sorted by patient.
    """
    tumour = slices["tumour_slice"].astype(bool)
    used = tumour | ~tumour.groupby(slices["patient"]).transform("any")
    means = slices[used].astype({"logit": np.float64}).groupby("patient")["logit"].mean()
    labels = slices.groupby("patient")["label"].max()
    return pd.DataFrame({"label": labels, "logit": means, "probability": expit(means)}).reset_index()


def logistic_baseline(train: pd.DataFrame, test: pd.DataFrame, columns=("age", "tumour_area")) -> np.ndarray:
    """What few clinical values say without a network: a logistic regression, the trivial baseline of the grade.

    Missing values become the training median, and an indicator says so; then all are standardised.

    Args:
      train: a row a patient, `columns` and `label`, with both classes.
      test: a row a patient, `columns`.

    Returns:
      (test row,) float64, probability of label 1.

    Raises:
      ValueError: the training labels are of one class, or a table has no row.
    """
    imputer = SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True)
    model = make_pipeline(imputer, StandardScaler(), LogisticRegression())
    inputs, new = (table[list(columns)].to_numpy(np.float64, na_value=np.nan) for table in (train, test))
    model.fit(inputs, train["label"].to_numpy(int))
    return model.predict_proba(new)[:, 1]


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _checked(labels, scores, probability=False) -> tuple[np.ndarray, np.ndarray]:
    """Labels as bool and scores as float64: a float32 score must not fall on the other side of its threshold."""
    labels, scores = np.asarray(labels), np.asarray(scores, np.float64)
    if labels.shape != scores.shape or labels.ndim != 1:
        raise ValueError(f"labels have shape {labels.shape}, scores {scores.shape}")
    if not len(labels):
        raise ValueError("no row to score")
    if not np.isin(labels, (0, 1)).all():
        raise ValueError("labels must be 0 or 1")
    if not np.isfinite(scores).all():
        raise ValueError(f"{(~np.isfinite(scores)).sum()} of {len(scores)} scores are not finite")
    if probability and (scores.min() < 0 or scores.max() > 1):
        raise ValueError(f"probabilities from {scores.min():g} to {scores.max():g}: are these logits?")
    return labels.astype(bool), scores
