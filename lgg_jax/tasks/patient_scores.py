"""Classification scores of slices and patients: cases.csv, slices.csv, metrics and figures.

    scores = PatientScores()
    scores.add(case, as_table(case, logits))
    metrics, tables, draw = scores.results(Thresholds(), preparation)
"""

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import expit

from lgg_jax.data.cases import Case
from lgg_jax.errors import UserError
from lgg_jax.figures import curves
from lgg_jax.metrics.classification import logistic_baseline, patient_scores, score, summarise
from lgg_jax.tasks.preparation import BASELINE, FILE, Preparation
from lgg_jax.tasks.results import Results, patient_columns, read_tables


@dataclasses.dataclass(frozen=True)
class Thresholds:
    """Options of a classifier, fixed or chosen on the validation set.

    Attributes:
      threshold: slices with a probability at or above it are predicted positive.
      patient_threshold: the same for patients.
      flip_tta: whether a logit is the mean over the slice and its mirror image (test-time augmentation).
    """

    threshold: float = 0.5
    patient_threshold: float = 0.5
    flip_tta: bool = False


class PatientScores:
    """Scores of slices and patients, added one patient at a time."""

    def __init__(self):
        self._slices, self._patients = [], []

    def __bool__(self) -> bool:
        return bool(self._slices)

    def add(self, case: Case, slices: pd.DataFrame) -> None:
        """Add a patient with its `slice_table`; the baseline uses the clinical values of its scan."""
        self._slices.append(slices)
        values = {name: case.scan.clinical.get(name) for name in BASELINE}
        self._patients.append(patient_columns(case.scan) | values)

    def results(self, chosen: Thresholds, preparation: Preparation) -> Results:
        """The scores of all added patients; "cases" has one row per patient, "slices" one row per slice."""
        return scored(self._slices, self._patients, chosen, preparation)


def scored(tables: list[pd.DataFrame], about: list[dict], chosen: Thresholds, preparation: Preparation) -> Results:
    """The scores of a classification.

    Args:
      tables: the `slice_table` of each patient.
      about: the first columns of cases.csv of each patient, with the values in BASELINE.
      chosen: the thresholds.
      preparation: its file tabular.json has the training patients, to which the baseline is fitted.

    Raises:
      UserError: there is no patient.
    """
    if not tables:
        raise UserError("no patient of this split has a label to score", "choose another split, target or data set")
    slices = pd.concat(tables, ignore_index=True)
    table = pd.DataFrame(about).merge(patient_scores(slices), on="patient")
    training = pd.DataFrame(preparation.files.get(FILE, {}).get("training", []))
    if len(training) and training["label"].nunique() == 2:
        table["baseline"] = logistic_baseline(training, table, BASELINE)
    return _summarised(slices, table, chosen)


def pool_tables(folders: list[Path], patients: str) -> Results:
    """The joint scores of several evaluations; `patients` is the name of the table with one row per patient.

    The thresholds are 0.5, because each run has chosen its own.
    """
    slices, table = (read_tables(folders, name) for name in ("slices", patients))
    return _summarised(slices, table, Thresholds())


def as_table(case: Case, logits: np.ndarray) -> pd.DataFrame:
    """The slice table of a case from its logits (row,): the columns of slices.csv."""
    return pd.DataFrame({
        "patient": case.scan.patient, "slice_index": case.slice_index, "tumour_slice": case.tumour,
        "label": case.labels.astype(int), "logit": logits, "probability": expit(logits.astype(np.float64)),
    })  # fmt: skip


def _summarised(slices: pd.DataFrame, table: pd.DataFrame, chosen: Thresholds) -> Results:
    metrics = summarise(slices, table, chosen.threshold, chosen.patient_threshold)
    metrics["baselines"] = {"majority": {"accuracy": metrics["patient"]["majority_accuracy"]}}
    # In a pooled table the baseline is missing for runs that were trained on one class only.
    if "baseline" in table and table["baseline"].notna().all():
        baseline = score(table["label"], table["baseline"], table["patient"], 0.5)
        metrics["baselines"][" + ".join(BASELINE)] = baseline

    def draw(folder: Path) -> None:
        name, level = ("slice", slices) if differs_within(slices) else ("patient", table)
        labels, probabilities, patients = level["label"], level["probability"], level["patient"]
        if labels.nunique() == 2:
            curves.roc(labels, probabilities, patients, folder / "roc.png")
            curves.precision_recall(labels, probabilities, patients, folder / "precision_recall.png")
        curves.reliability(labels, probabilities, folder / "reliability.png")
        curves.confusion_matrix(metrics[name]["confusion"], ("no", "yes"), folder / "confusion.png")

    return Results(metrics, {"cases": table, "slices": slices}, draw)


def differs_within(slices: pd.DataFrame) -> bool:
    """Whether slices of one patient have different labels, so that the label belongs to the slice."""
    return bool((slices.groupby("patient")["label"].nunique() > 1).any())
