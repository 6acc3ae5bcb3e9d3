"""Joint segmentation and grading by one network: a U-Net with a classification head on its deepest features."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path

import jax
import ml_collections
import numpy as np
import pandas as pd
import tqdm
from flax import linen as nn

from lgg_jax.data.cases import Case, prepare_case
from lgg_jax.data.mask_features import mask_features
from lgg_jax.data.volume import Volume
from lgg_jax.errors import UserError
from lgg_jax.inference.predictor import Postprocessing, Predictor, case_mask, make_predictor
from lgg_jax.tasks import classification, segmentation
from lgg_jax.tasks import preparation as preparation_lib
from lgg_jax.tasks.checks import check_outputs, check_segmentation
from lgg_jax.tasks.patient_scores import PatientScores, Thresholds, as_table, pool_tables
from lgg_jax.tasks.preparation import GradingRun, Preparation, Segment, check_data
from lgg_jax.tasks.results import Results
from lgg_jax.training import losses

OUTPUTS = ("mask", "label")
SCORE = segmentation.SCORE
CHOSEN = Postprocessing
cached, inputs = segmentation.cached, classification.inputs


def check(config: ml_collections.ConfigDict) -> None:
    """Raise UserError if the config requests something that the task does not support."""
    check_data(config.data)
    classification.check_labels(config)
    check_outputs(config, OUTPUTS, "does not give both a mask and a grade")
    data = config.data
    if data.target != "grade" or data.region != "slice" or data.tabular or data.segmentation_workdir:
        raise UserError(
            "config.task=joint predicts the grade from whole slices and its own predicted mask alone",
            "set config.data.target=grade and region=slice, and leave tabular and segmentation_workdir empty",
        )
    check_segmentation(config)


def preparation(
    config: ml_collections.ConfigDict, workdir: Path, segment: Segment | None, splits: dict | None = None
) -> Preparation:
    """The preparation of all slices. A slice with tumour has the label of its patient's grade; other labels are NaN."""
    graded = preparation_lib.preparation(config, workdir, segment, splits)

    def prepare(scan: Volume) -> Case:
        case, grade = prepare_case(scan, config.data), scan.clinical.get("grade")
        labels = np.where(case.tumour, np.nan if grade is None else float(grade > 2), np.nan)
        return dataclasses.replace(case, labels=labels.astype(np.float32))

    return dataclasses.replace(graded, prepare=prepare)


def predictor(model: nn.Module, batch_size: int) -> Predictor:
    """A function (variables, images, clinical) → {"mask": probabilities (n, size, size), "label": logits (n,)}."""

    def output(logits):
        return {"mask": jax.nn.sigmoid(logits["mask"]), "label": logits["label"]}

    return make_predictor(model, batch_size, output)


def loss(config: ml_collections.ConfigDict, logits: dict, batch: dict, all_sum: losses.AllSum):
    """The sum of the losses of both tasks; in `config`, which is `config.loss`, `label` is the weight of the grade."""
    mask_loss, metrics = segmentation.loss(config, logits["mask"], batch, all_sum)
    label_loss, graded = classification.loss(config, logits["label"], batch, all_sum)
    rows = metrics["loss"][1]
    metrics |= {f"grade_{name}": value for name, value in graded.items()}
    return mask_loss + label_loss, metrics | {"loss": ((mask_loss + label_loss) * rows, rows)}


def validate(predict: Predictor, variables: dict, cases: list[Case]) -> tuple[float, dict]:
    """The mean volume Dice of `segmentation.validate`."""
    return segmentation.validate(mask_predictor(predict), variables, cases)


def pictures(predict: Predictor, variables: dict, cases: list[Case]) -> dict[str, np.ndarray]:
    """The images of `segmentation.pictures`."""
    return segmentation.pictures(mask_predictor(predict), variables, cases)


def choose(predict: Predictor, variables: dict, cases: list[Case], config: ml_collections.ConfigDict):
    """The choice of `segmentation.choose`. The threshold of the grade is always 0.5."""
    return segmentation.choose(mask_predictor(predict), variables, cases, config)


def evaluate(
    predict: Predictor, variables: dict, cases: Iterable[Case], chosen: Postprocessing, preparation: Preparation
) -> Results:
    """Score both tasks. The slices with tumour are those of the predicted mask.

    Returns:
      The metrics {"segmentation": …, "classification": …}. If no grade is known, as in a data set without a clinical
      table, "classification" is None. The tables are "cases" of the segmentation, and "grades" and "slices" of the
      patients with a known grade.
    """
    volumes, grades = segmentation.VolumeScores(), PatientScores()
    for case in tqdm.tqdm(cases, unit="volume", disable=None):
        mask = case_mask(mask_predictor(predict), variables, case, chosen)
        volumes.add(case.scan, mask)
        if case.scan.clinical.get("grade") is not None:
            predicted = _with_predicted(case, mask)
            grades.add(predicted, slice_table(predict, variables, predicted, mask))
    graded = grades.results(Thresholds(), preparation) if grades else None
    return _both(volumes.results(chosen), graded)


def slice_table(predict: Predictor, variables: dict, case: Case, mask: np.ndarray) -> pd.DataFrame:
    """As `classification.slice_table`; the slices with tumour are those of `mask`, (slice, height, width) bool."""
    logits = _both_outputs(predict, variables, case.images)["label"]
    return as_table(dataclasses.replace(case, tumour=mask.any(axis=(1, 2))), logits)


def _with_predicted(case: Case, mask: np.ndarray) -> Case:
    """The case with the features of the predicted mask, and the label of the patient for all slices."""
    values = case.scan.clinical | (mask_features(case.scan, mask) or {})
    labels = np.full(len(mask), values["grade"] > 2)
    return dataclasses.replace(case, scan=dataclasses.replace(case.scan, clinical=values), labels=labels)


def _both(segmented: Results, graded: Results | None) -> Results:
    """The combined results of both tasks."""
    if graded is None:
        return segmented._replace(metrics={"segmentation": segmented.metrics, "classification": None})
    tables = {"grades": graded.tables["cases"], "slices": graded.tables["slices"]}

    def draw(folder: Path) -> None:
        segmented.draw(folder)
        graded.draw(folder)

    metrics = {"segmentation": segmented.metrics, "classification": graded.metrics}
    return Results(metrics, segmented.tables | tables, draw)


def pool(folders: list[Path]) -> Results:
    """Score several evaluations of different patients together, for both tasks."""
    graded = [folder for folder in folders if (folder / "grades.csv").exists()]
    return _both(segmentation.pool(folders), pool_tables(graded, "grades") if graded else None)


def grading_run(
    config: ml_collections.ConfigDict, _workdir: Path, predict: Predictor, variables: dict, _chosen: Postprocessing
) -> GradingRun:
    """A `GradingRun` that predicts the grade of a scan with a given mask, from whole slices without clinical values."""

    def table(scan: Volume, mask: np.ndarray) -> pd.DataFrame:
        case = dataclasses.replace(prepare_case(scan, config.data), labels=np.zeros(len(mask), np.float32))
        return slice_table(predict, variables, case, mask)

    return GradingRun(tuple(config.data.channels), table, Thresholds.patient_threshold)


def headline(result: dict) -> str:
    """The headlines of both tasks."""
    parts = (segmentation, result["segmentation"]), (classification, result["classification"])
    return "\n".join(task.headline(part) for task, part in parts if part)


def about(config: ml_collections.ConfigDict) -> dict:
    """The entries of metrics.json that describe the run."""
    return classification.about(config) | {"masks": "predicted"}


def mask_predictor(predict: Predictor) -> Predictor:
    """The predictor that `segmentation` needs: (variables, images) → probabilities."""
    return lambda variables, images: _both_outputs(predict, variables, images)["mask"]


def _both_outputs(predict: Predictor, variables: dict, images: np.ndarray) -> dict[str, np.ndarray]:
    return predict(variables, images, np.zeros((len(images), 0), np.float32))
