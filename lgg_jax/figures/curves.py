"""Figures of a binary classifier, as PNG: ROC, precision-recall, calibration and confusion matrix.

    roc(labels, scores, patients, "roc.png")
    precision_recall(labels, scores, patients, "precision_recall.png")
    reliability(labels, probabilities, "reliability.png")
    confusion_matrix({"tp": 40, "fp": 6, "fn": 9, "tn": 32}, ("grade II", "grade III"), "confusion.png")

`labels` (0 or 1), `scores`, `probabilities` and `patients` have the shape (row,). A row is a slice or a patient. A
higher score means more likely positive. As in masks.py, matplotlib's global state is not used.
"""

from collections.abc import Callable

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_curve

from lgg_jax.metrics.classification import (
    auc_with_ci,
    brier,
    calibration_bins,
    expected_calibration_error,
    resampled_curves,
)

BLUE, GREY = "#0072B2", "0.45"  # from the palette of Okabe and Ito, as in masks.py
# Small figures with large letters, so that they are readable in a card of the report and on a phone.
WIDTH, DPI = 4.2, 200


def roc(labels, scores, patients, path) -> None:
    """Save the ROC curve with the pointwise 95% confidence band of a bootstrap over patients.

    Raises:
      ValueError: a class is missing.
    """
    _need_both_classes(labels)
    fpr, tpr, _ = roc_curve(labels, scores, drop_intermediate=False)
    numbers, grid = auc_with_ci(labels, scores, patients), np.linspace(0, 1, 201)
    figure, axes = _square(labels, patients)
    band = _band(labels, scores, patients, lambda tp, fp: np.interp(grid, fp / fp[-1], tp / tp[-1]))
    if band is not None:
        axes.fill_between(grid, *band, color=BLUE, alpha=0.18, linewidth=0, label="95% confidence band")
    axes.plot(fpr, tpr, color=BLUE, linewidth=1.8, label=_with_ci("AUC", numbers["auc"], numbers["auc_ci95"]))
    axes.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1, label="chance level (AUC 0.5)")
    axes.set(xlabel="false positive rate (1 - specificity)", ylabel="true positive rate (sensitivity)")
    _finish(figure, axes, path)


def precision_recall(labels, scores, patients, path) -> None:
    """Save the precision-recall curve with its pointwise 95% confidence band.

    The legend has the average precision Σ (R_i - R_(i-1)) P_i.

    Raises:
      ValueError: a class is missing.
    """
    _need_both_classes(labels)
    precision, recall, _ = precision_recall_curve(labels, scores)
    recall, first = np.unique(recall[::-1], return_index=True)  # the area under the steps is the average precision
    precision = precision[::-1][first]
    precision[0] = precision[1]  # scikit-learn starts with precision 1, which no threshold yields
    average, grid = average_precision_score(labels, scores), np.linspace(0.005, 1, 200)
    figure, axes = _square(labels, patients)
    band = _band(labels, scores, patients, lambda tp, fp: _precision(tp, fp, grid))
    if band is not None:
        axes.fill_between(grid, *band[:, 1:], color=BLUE, alpha=0.18, linewidth=0, label="95% confidence band")
    interval = None if band is None else band[:, 0]
    axes.step(recall, precision, where="pre", color=BLUE, linewidth=1.8,
              label=_with_ci("average precision", average, interval))
    prevalence = float(np.mean(labels))
    chance = f"chance level (prevalence {prevalence:.2f})"
    axes.axhline(prevalence, color=GREY, linestyle="--", linewidth=1, label=chance)
    axes.set(xlabel="recall (sensitivity)", ylabel="precision (positive predictive value)")
    _finish(figure, axes, path)


def reliability(labels, probabilities, path) -> None:
    """Save the calibration curve over ten bins of the predicted probability, and the number of rows in each bin."""
    count, expected, positives = calibration_bins(labels, probabilities)
    used, edges = count > 0, np.linspace(0, 1, len(count) + 1)
    figure = Figure(figsize=(WIDTH, 5.4), layout="constrained")
    axes, below = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    axes.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1, label="perfect calibration")
    axes.plot(expected[used] / count[used], positives[used] / count[used], "o-", color=BLUE, label="ten bins")
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), ylabel="fraction of positives")
    error = expected_calibration_error(labels, probabilities)
    axes.set_title(f"n = {count.sum()}, Brier score {brier(labels, probabilities):.3f},\n"
                   f"expected calibration error {error:.3f}", fontsize=9)
    bars = below.bar(edges[:-1], count, width=np.diff(edges), align="edge", color=BLUE, edgecolor="white")
    below.bar_label(bars, fontsize=7, padding=1)
    below.set(xlabel="predicted probability", ylabel="count", ylim=(0, 1.25 * count.max()), yticks=[])
    for part in (axes, below):
        part.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    figure.savefig(path, dpi=DPI)


def confusion_matrix(confusion: dict, names: tuple[str, str], path) -> None:
    """Save the confusion matrix: true classes in rows, each cell with its count and its share of the row.

    Args:
      confusion: {"tp", "fp", "fn", "tn"}, as in the results of `metrics.classification.score`.
      names: names of the negative and of the positive class.
    """
    counts = np.array([[confusion["tn"], confusion["fp"]], [confusion["fn"], confusion["tp"]]])
    totals = counts.sum(axis=1, keepdims=True)
    shares = counts / np.maximum(totals, 1)
    figure = Figure(figsize=(WIDTH, 3.3), layout="constrained")
    axes = figure.subplots()
    picture = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), share in np.ndenumerate(shares):
        text = f"{counts[row, column]}\n" + (f"{100 * share:.1f}%" if totals[row] else "–")
        axes.text(column, row, text, ha="center", va="center", color="white" if share > 0.5 else "black")
    rows = [f"{name}\n(n = {total})" for name, total in zip(names, totals[:, 0], strict=True)]
    axes.set(xlabel="predicted class", ylabel="true class", xticks=[0, 1], yticks=[0, 1])
    axes.set(xticklabels=names, yticklabels=rows)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    figure.colorbar(picture, label="share of the true class", shrink=0.85)
    figure.savefig(path, dpi=DPI)


def _precision(tp: np.ndarray, fp: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """The average precision, followed by the precision at the first point that reaches each recall of the grid."""
    some = tp + fp > 0
    recall, precision = tp[some] / tp[-1], tp[some] / (tp + fp)[some]
    average = np.sum(np.diff(recall, prepend=0) * precision)
    return np.append(average, precision[np.searchsorted(recall, grid)])


def _band(labels, scores, patients, statistic: Callable) -> np.ndarray | None:
    """95% bounds, (2, value), of `statistic(tp, fp)` over bootstrap samples of the patients; None if there are none."""
    values = [statistic(tp, fp) for tp, fp in resampled_curves(labels, scores, patients)]
    return np.quantile(values, [0.025, 0.975], axis=0) if values else None


def _need_both_classes(labels) -> None:
    if len(np.unique(labels)) != 2:
        raise ValueError("a curve needs rows of both classes")


def _with_ci(name: str, value: float, interval) -> str:
    text = f"{name} {value:.3f}"
    return text if interval is None else text + " (95% CI {:.3f} to {:.3f})".format(*interval)


def _square(labels, patients) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH, 4.9), layout="constrained")
    axes = figure.subplots()
    rows, positives, people = len(labels), int(np.sum(labels)), len(np.unique(np.asarray(patients)))
    title = f"{rows} patients" if rows == people else f"{rows} slices of {people} patients"
    axes.set_title(f"{title}, {positives} positive", fontsize=9)
    return figure, axes


def _finish(figure: Figure, axes: Axes, path) -> None:
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", frameon=False, fontsize=9)
    figure.savefig(path, dpi=DPI)
