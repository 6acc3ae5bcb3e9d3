"""Binary classification metrics per slice and per patient: the metrics of a classification metrics.json.

    patients = patient_scores(slices)                                        # mean logit over tumour slices
    threshold = best_threshold(validation["label"], validation["probability"])
    metrics = summarise(slices, patients, threshold, patient_threshold)      # ready for json.dumps
    delong_ci(labels, scores), bootstrap_auc_ci(labels, scores, patients)    # AUC with intervals

Values of `score` that are undefined (None, never NaN) or easily misread:

    case                     auc     auc_ci95_delong          auc_ci95_bootstrap   other
    only positives           None    None                     None                 specificity None
    only negatives           None    None                     None                 sensitivity None; f1 None without fp
    a class with one row     number  None                     None
    a class in one patient   number  interval                 None
    one patient              number  interval                 None                 accuracy_ci95 None
    all scores equal         0.5     [0.5, 0.5]               [0.5, 0.5]
    perfect separation       1       [0.025 ** (1 / k), 1]    [1, 1]               k: rows of the smaller class
    no row                   ValueError; UserError from `summarise`

A row is predicted positive if its probability is at or above the threshold.
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
    """AUC with the confidence interval of DeLong, DeLong and Clarke-Pearson (1988), by midranks (Sun and Xu 2014).

    V10 is the fraction of negatives with a score below that of a positive row (ties count half). V01 is the fraction of
    positives with a score above that of a negative row. AUC = mean(V10), with the variance var(V10) / m + var(V01) / n.
    The interval is symmetric on the scale of logit(AUC). It stays within [0, 1] and has better coverage than
    AUC ± 1.96 SE (simulated normal scores, AUC 0.95, nominal 95 %: 94 % instead of 89 % with 44 + 43 rows; 98 % instead
    of 66 % with 9 + 9 rows). With perfect separation the variance is 0. The bound then comes from the k disjoint pairs
    (k: rows of the smaller class), which are all ordered correctly with probability AUC ** k.

    Rows are assumed to be independent. This holds for patients; for slices the interval is far too narrow.

    Args:
      labels: (row,) 0/1 or bool.
      scores: (row,) finite numbers; a higher score means more likely positive.
      level: nominal coverage of the interval.

    Returns:
      AUC, or None if a class is missing; [low, high], or None if a class has fewer than two rows.

    Raises:
      ValueError: no row, different lengths, labels other than 0 and 1, or scores that are not finite.
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
    """Percentile bootstrap confidence interval of the AUC; each resampled patient contributes all its rows.

    Resamples that lack a class have no AUC and are excluded. Coverage for simulated slices, nominal 95 %, with 18 and
    88 patients: 92 % (DeLong 39 %) if all slices of a patient have the same label, as for grade; 88 % and 93 % (DeLong
    83 % and 81 %) if they differ, as for presence.

    The arguments are those of `resampled_curves`. The result is None if a class occurs in fewer than two patients.
    """
    areas = [np.trapezoid(tp, fp) / (tp[-1] * fp[-1])
             for tp, fp in resampled_curves(labels, scores, patients, seed, resamples)]
    return np.quantile(areas, [(1 - level) / 2, (1 + level) / 2]).tolist() if areas else None


def resampled_curves(labels, scores, patients, seed=0, resamples=2000) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Counts for the ROC and precision–recall curve of each bootstrap resample of the patients.

    Args:
      labels: (row,) 0/1 or bool.
      scores: (row,) finite numbers; a higher score means more likely positive.
      patients: (row,) names. The resamples depend on the sorted names, not on the order of the rows.
      seed: seed of the resampling.
      resamples: number of bootstrap resamples.

    Yields:
      tp, fp: (1 + distinct scores,) int, positives and negatives at or above each score, from the highest score down;
      both start at 0. Resamples that lack a class are skipped. Nothing is yielded if a class occurs in fewer than two
      patients.

    Raises:
      ValueError: as for `delong_ci`.
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
    """AUC with both confidence intervals: {"auc", "auc_ci95", "auc_ci95_delong", "auc_ci95_bootstrap"}.

    `auc_ci95` is the interval of DeLong if every patient has one row, else that of the bootstrap over patients.
    """
    auc, delong = delong_ci(labels, scores)
    bootstrap = bootstrap_auc_ci(labels, scores, patients)
    one_row_each = len(np.unique(np.asarray(patients))) == len(labels)
    return {"auc": auc, "auc_ci95": delong if one_row_each else bootstrap,
            "auc_ci95_delong": delong, "auc_ci95_bootstrap": bootstrap}


def brier(labels, probabilities) -> float:
    """Brier score mean((probability - label)²) (Brier 1950); 0 is best, a constant 0.5 scores 0.25."""
    labels, probabilities = _checked(labels, probabilities, probability=True)
    return float(brier_score_loss(labels, probabilities, pos_label=True))


def calibration_bins(labels, probabilities, bins=10) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Counts for a calibration curve in equal-width bins (0, 0.1], (0.1, 0.2], …; 0 belongs to the first bin.

    Returns:
      Number of rows, sum of probabilities and number of positives, each (bin,).
    """
    labels, probabilities = _checked(labels, probabilities, probability=True)
    index = np.searchsorted(np.linspace(0, 1, bins + 1)[1:-1], probabilities, side="left")
    count = np.bincount(index, minlength=bins)
    return count, np.bincount(index, probabilities, bins), np.bincount(index, labels, bins)


def expected_calibration_error(labels, probabilities, bins=10) -> float:
    """Σ_b (n_b / n) · |fraction of positives in b - mean probability in b| over equal-width bins (Guo et al. 2017).

    Guo et al. bin the confidence in the predicted class; this binary form bins the probability of the positive class.
    """
    count, expected, positives = calibration_bins(labels, probabilities, bins)
    return float(np.abs(positives - expected).sum() / count.sum())


def best_threshold(labels, probabilities) -> float:
    """The threshold with the highest accuracy on the validation set; if there are several, the one nearest to 0.5.

    The candidates are the midpoints between neighbouring distinct probabilities, to which 0 and 1 are added.
    """
    labels, probabilities = _checked(labels, probabilities, probability=True)
    levels = np.unique([0.0, *probabilities, 1.0])
    candidates = (levels[:-1] + levels[1:]) / 2
    positive, negative = np.sort(probabilities[labels]), np.sort(probabilities[~labels])
    correct = len(positive) - np.searchsorted(positive, candidates) + np.searchsorted(negative, candidates)
    best = candidates[correct == correct.max()]
    return float(best[np.abs(best - 0.5).argmin()])


def score(labels, probabilities, patients, threshold: float) -> dict:
    """All metrics per slice or per patient; the table in the module's docstring lists the edge cases.

    Args:
      labels: (row,) 0/1 or bool.
      probabilities: (row,) in [0, 1].
      patients: (row,) names. Rows of the same patient are resampled together.
      threshold: rows with a probability at or above it are predicted positive.

    Returns:
      A nested dictionary, ready for `json.dumps(..., allow_nan=False)`.

    Raises:
      ValueError: no row, different lengths, labels other than 0 and 1, or probabilities outside [0, 1].
    """
    labels, probabilities = _checked(labels, probabilities, probability=True)
    predicted = probabilities >= threshold
    tp, fp, fn, tn = (int(count) for count in confusion(predicted, labels))
    correct = pd.Series(predicted == labels).groupby(np.asarray(patients))
    return {
        "accuracy": (tp + tn) / len(labels),
        "accuracy_ci95": bootstrap_ci(correct.sum(), correct.size()),
        "majority_accuracy": max(tp + fn, tn + fp) / len(labels),
        "f1": _ratio(2 * tp, 2 * tp + fp + fn),
        "sensitivity": _ratio(tp, tp + fn),
        "specificity": _ratio(tn, tn + fp),
        **auc_with_ci(labels, probabilities, patients),
        "brier": brier(labels, probabilities),
        "ece": expected_calibration_error(labels, probabilities),
        "n": len(labels),
        "n_positive": tp + fn,
        "n_patients": correct.ngroups,
        "confusion": {"tp": tp, "fp": fp, "fn": fn, "tn": tn},
    }


def summarise(slices: pd.DataFrame, patients: pd.DataFrame, threshold: float, patient_threshold: float) -> dict:
    """The metrics of a classification metrics.json.

    Each part has its own `majority_accuracy`; the one at the top level is that of the slices.

    Args:
      slices: columns patient, label, probability; one row per slice.
      patients: the same columns; one row per patient.

    Raises:
      UserError: one of the tables has no row.
    """
    if slices.empty or patients.empty:
        raise UserError("no slice of this split has a label to score", "choose another split, target or data set")
    parts = {name: score(table["label"], table["probability"], table["patient"], limit)
             for name, table, limit in (("slice", slices, threshold), ("patient", patients, patient_threshold))}
    return {**parts, "majority_accuracy": parts["slice"]["majority_accuracy"],
            "threshold": float(threshold), "patient_threshold": float(patient_threshold)}


def patient_scores(slices: pd.DataFrame) -> pd.DataFrame:
    """Aggregate slices to patients: the mean logit over tumour slices, and the highest label.

    If a patient has no tumour slice, the mean is over all slices.

    Args:
      slices: columns patient, logit, label and tumour_slice (bool: the slice has tumour, known or predicted).

    Returns:
      Columns patient, label, logit, probability; one row per patient, sorted by patient.
    """
    tumour = slices["tumour_slice"].astype(bool)
    used = tumour | ~tumour.groupby(slices["patient"]).transform("any")
    means = slices[used].astype({"logit": np.float64}).groupby("patient")["logit"].mean()
    labels = slices.groupby("patient")["label"].max()
    return pd.DataFrame({"label": labels, "logit": means, "probability": expit(means)}).reset_index()


def logistic_baseline(train: pd.DataFrame, test: pd.DataFrame, columns=("age", "tumour_area")) -> np.ndarray:
    """Baseline of the grade: a logistic regression on a few clinical values, without a network.

    Missing values are replaced by the training median, with an indicator column. All columns are then standardised.

    Args:
      train: `columns` and `label`, with both classes; one row per patient.
      test: `columns`; one row per patient.

    Returns:
      (test row,) float64, probability of label 1.

    Raises:
      ValueError: the training labels have only one class, or a table has no row.
    """
    imputer = SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True)
    model = make_pipeline(imputer, StandardScaler(), LogisticRegression())
    inputs, new = (table[list(columns)].to_numpy(np.float64, na_value=np.nan) for table in (train, test))
    model.fit(inputs, train["label"].to_numpy(int))
    return model.predict_proba(new)[:, 1]


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _checked(labels, scores, probability=False) -> tuple[np.ndarray, np.ndarray]:
    """Checked labels as bool, scores as float64: a float32 threshold could round to the other side of a score."""
    labels, scores = np.asarray(labels), np.asarray(scores, np.float64)
    if labels.shape != scores.shape or labels.ndim != 1:
        raise ValueError(f"labels have shape {labels.shape}, scores have shape {scores.shape}")
    if not len(labels):
        raise ValueError("no row to score")
    if not np.isin(labels, (0, 1)).all():
        raise ValueError("labels must be 0 or 1")
    if not np.isfinite(scores).all():
        raise ValueError(f"{(~np.isfinite(scores)).sum()} of {len(scores)} scores are not finite")
    if probability and (scores.min() < 0 or scores.max() > 1):
        raise ValueError(f"probabilities from {scores.min():g} to {scores.max():g}: are these logits?")
    return labels.astype(bool), scores
