"""One network, both answers: the tumour's outline and its grade, from a U-Net with a head on its deepest features."""

import dataclasses
from collections.abc import Callable, Iterable
from pathlib import Path

import jax
import ml_collections
import numpy as np
import pandas as pd
from flax import linen as nn

from lgg_jax.data.cases import Case, prepare_case
from lgg_jax.data.mask_features import mask_features
from lgg_jax.errors import UserError
from lgg_jax.inference.predictor import Postprocessing, Predictor, case_mask, make_predictor
from lgg_jax.tasks import classification, segmentation
from lgg_jax.tasks import preparation as grading
from lgg_jax.training import losses

SCORE = segmentation.SCORE
CHOSEN = Postprocessing
cached, inputs = segmentation.cached, classification.inputs


def check(config: ml_collections.ConfigDict) -> None:
    """UserError where the config asks for what there is not."""
    grading.check(config.data)
    classification.check_labels(config)
    if config.model.name != "unet_resnet50" or not config.model.grade_head:
        given = f"config.model.name={config.model.name!r}, grade_head={config.model.grade_head}"
        raise UserError(f"{given}: task joint needs both answers", "use 'unet_resnet50' with grade_head=True")
    data = config.data
    if data.target != "grade" or data.region != "slice" or data.tabular or data.segmentation_workdir:
        raise UserError(
            "config.task=joint grades what it outlines: it cannot be given the outline",
            "use config.data.target=grade, region=slice and neither tabular nor segmentation_workdir",
        )
    segmentation.check_outline(config)


def preparation(config: ml_collections.ConfigDict, workdir: Path, splits: dict | None = None) -> grading.Preparation:
    """All slices; those with tumour of a patient whose grade is known carry it as their label."""
    graded = grading.preparation(config, workdir, splits)

    def prepare(scan) -> Case:
        case, grade = prepare_case(scan, config.data), scan.clinical.get("grade")
        labels = np.where(case.tumour, np.nan if grade is None else float(grade > 2), np.nan)
        return dataclasses.replace(case, labels=labels.astype(np.float32))

    return dataclasses.replace(graded, prepare=prepare)


def predictor(model: nn.Module, batch_size: int) -> Predictor:
    """(variables, images, clinical) → {"mask": probabilities (n, size, size), "label": logits (n,)}."""
    def output(logits):
        return {"mask": jax.nn.sigmoid(logits["mask"]), "label": logits["label"]}

    return make_predictor(model, batch_size, output)


def loss(config: ml_collections.ConfigDict, logits: dict, batch: dict, all_sum: losses.AllSum):
    """The sum of both tasks' losses; `config.loss.label` weighs the grade."""
    outline, metrics = segmentation.loss(config, logits["mask"], batch, all_sum)
    grade, graded = classification.loss(config, logits["label"], batch, all_sum)
    rows = metrics["loss"][1]
    metrics |= {f"grade_{name}": value for name, value in graded.items()}
    return outline + grade, metrics | {"loss": ((outline + grade) * rows, rows)}


def validate(predict: Predictor, variables: dict, cases: list[Case]) -> tuple[float, dict]:
    """The mean volume Dice of `segmentation.validate`."""
    return segmentation.validate(_masks(predict), variables, cases)


def pictures(predict: Predictor, variables: dict, cases: list[Case]) -> dict[str, np.ndarray]:
    """Those of `segmentation.pictures`."""
    return segmentation.pictures(_masks(predict), variables, cases)


def choose(predict: Predictor, variables: dict, cases: list[Case], config):
    """What `segmentation.choose` chooses; a grade of III is said from a probability of 0.5 on."""
    return segmentation.choose(_masks(predict), variables, cases, config)


def evaluate(
    predict: Predictor, variables: dict, cases: Iterable[Case], chosen: Postprocessing,
    preparation: grading.Preparation,
) -> tuple[dict, dict[str, pd.DataFrame], Callable[[Path], None]]:
    """{"segmentation": …, "classification": …}: both metrics; the grade from slices predicted to be tumour.

    The tables are those of both tasks: cases, and grades and slices for the patients whose grade is known. Where no
    grade is known, as in a data set without a clinical table, "classification" is None.
    """
    grades, about = [], []

    def outlined() -> Iterable[Case]:
        for case in cases:
            if case.scan.clinical.get("grade") is not None:
                mask = case_mask(_masks(predict), variables, case, chosen)
                predicted = _outlined(case, mask)
                grades.append(slice_table(predict, variables, predicted, mask))
                about.append(classification.about_patient(predicted))
            yield case

    outline = segmentation.evaluate(_masks(predict), variables, outlined(), chosen, preparation)
    graded = classification.scored(grades, about, classification.Thresholds(), preparation) if grades else None
    return _both(outline, graded)


def slice_table(predict: Predictor, variables: dict, case: Case, mask: np.ndarray) -> pd.DataFrame:
    """That of `classification.slice_table`; the tumour slices are those of `mask` (slice, height, width) bool."""
    logits = _both_answers(predict, variables, case.images)["label"]
    return classification.as_table(dataclasses.replace(case, tumour=mask.any(axis=(1, 2))), logits)


def _outlined(case: Case, mask: np.ndarray) -> Case:
    """The case with what this outline tells, and labels on all slices: what a classifier is told of a patient."""
    values = case.scan.clinical | (mask_features(case.scan, mask) or {})
    labels = np.full(len(mask), values["grade"] > 2)
    return dataclasses.replace(case, scan=dataclasses.replace(case.scan, clinical=values), labels=labels)


def _both(outline: tuple, graded: tuple | None) -> tuple[dict, dict[str, pd.DataFrame], Callable[[Path], None]]:
    """What `segmentation.evaluate` and `classification.scored` return, as one."""
    metrics, tables, draw = outline
    if graded is None:
        return {"segmentation": metrics, "classification": None}, tables, draw
    both, more, draw_grades = {"segmentation": metrics, "classification": graded[0]}, graded[1], graded[2]

    def draw_both(folder: Path) -> None:
        draw(folder)
        draw_grades(folder)

    return both, tables | {"grades": more["cases"], "slices": more["slices"]}, draw_both


def headline(result: dict) -> str:
    """Both tasks' headlines."""
    parts = (segmentation, result["segmentation"]), (classification, result["classification"])
    return "\n".join(task.headline(part) for task, part in parts if part)


def about(config: ml_collections.ConfigDict) -> dict:
    """What metrics.json says of the run."""
    return classification.about(config) | {"masks": "predicted"}


def pool(folders: list[Path]) -> tuple[dict, dict[str, pd.DataFrame], Callable[[Path], None]]:
    """Both tasks' pools."""
    graded = [folder for folder in folders if (folder / "grades.csv").exists()]
    return _both(segmentation.pool(folders), classification.pool(graded, "grades") if graded else None)


def _masks(predict: Predictor) -> Predictor:
    """The part of the predictor that `segmentation` knows: (variables, images) → probabilities."""
    return lambda variables, images: _both_answers(predict, variables, images)["mask"]


def _both_answers(predict: Predictor, variables: dict, images: np.ndarray) -> dict[str, np.ndarray]:
    return predict(variables, images, np.zeros((len(images), 0), np.float32))
