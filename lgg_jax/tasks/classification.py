"""Binary classification of a slice: tumour present or absent (`presence`), or grade III or II (`grade`).

The score of a patient is the mean logit over its tumour slices. With `config.data.segmentation_workdir`, the region
around the tumour comes from the mask that this run predicts, for every patient that is scored: a new patient has no
ground-truth mask.
"""

import dataclasses
from collections.abc import Iterable
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pandas as pd
import tqdm
from flax import linen as nn
from scipy.special import expit

from lgg_jax import models, parallel
from lgg_jax.data.cases import Case
from lgg_jax.data.pipeline import Slices
from lgg_jax.data.volume import Volume
from lgg_jax.errors import UserError
from lgg_jax.inference.predictor import Predictor, in_batches, make_predictor
from lgg_jax.metrics.classification import best_threshold, delong_ci, patient_scores
from lgg_jax.tasks import preparation as preparation_lib
from lgg_jax.tasks.checks import CHOICES, check_outputs, check_postprocessing
from lgg_jax.tasks.patient_scores import PatientScores, Thresholds, as_table, differs_within, pool_tables
from lgg_jax.tasks.preparation import GradingRun, Preparation, check_data, restored
from lgg_jax.tasks.results import Results
from lgg_jax.training import losses

OUTPUTS = ("label",)
SCORE = "score"
CHOSEN = Thresholds
preparation = preparation_lib.preparation


def check(config: ml_collections.ConfigDict) -> None:
    """Raise UserError if the config requests something that the task does not support."""
    check_data(config.data)
    check_labels(config)
    check_postprocessing(config.eval)
    check_outputs(config, OUTPUTS, "does not classify")
    if config.eval.flip_tta == "on" and "backbone" in config.optimizer.frozen:
        wrong = "config.eval.flip_tta='on': the features of a frozen backbone are computed once, without mirror images"
        raise UserError(wrong, "set it to 'choose' or 'off', or do not freeze the backbone")
    for field, value in (("eval.finer", config.eval.finer), ("train.start_size", config.train.start_size)):
        if value:
            raise UserError(f"config.{field}={value}: a classifier uses one grid", "leave it as in configs/default.py")
    if "on" in (config.eval.largest_component, config.eval.fill_holes):
        wrong = "config.eval.largest_component and fill_holes are for masks: a classifier predicts none"
        raise UserError(wrong, "leave them at 'choose', or set them to 'off'")
    if not models.network(config.model.name).images and not config.data.tabular:
        wrong = f"config.model.name={config.model.name!r} uses config.data.tabular alone, which is empty"
        raise UserError(wrong, "set config.data.tabular to names of clinical values or mask features")


def check_labels(config: ml_collections.ConfigDict) -> None:
    """Raise UserError if the augmentation invalidates labels."""
    if config.augment.carve_mix:
        wrong = f"config.augment.carve_mix={config.augment.carve_mix}: the label does not apply to a pasted tumour"
        raise UserError(wrong, "set it to 0, or use config.task=segmentation")


def inputs(batch: dict) -> tuple:
    """The inputs of the model from a batch: images and clinical values."""
    return batch["image"], batch["clinical"]


def predictor(model: nn.Module, batch_size: int) -> Predictor:
    """A function (variables, images, clinical) → logits (n,)."""
    return make_predictor(model, batch_size, output=lambda logits: logits)


def mask_predictor(_predict: Predictor) -> None:
    """Return None: a classification predicts no mask."""


def cached(config, variables: dict, slices: Slices, cases: list[Case], model: nn.Module) -> tuple[Slices, list[Case]]:
    """Replace the images by their features if the backbone is frozen: only the head is trained.

    Returns:
      Slices with image (slice, feature) and cases with images (row, feature), both float32; the arguments if the
      backbone is trained.
    """
    if "backbone" not in config.optimizer.frozen:
        return slices, cases
    apply = parallel.map_local(lambda v, x: model.apply(v, x[0].astype(jnp.float32), method=model.features))
    features = in_batches(apply, config.eval.batch_size)
    cases = [dataclasses.replace(case, images=features(variables, case.images)) for case in cases]
    return dataclasses.replace(slices, image=features(variables, slices.image)), cases


def loss(config: ml_collections.ConfigDict, logits: jax.Array, batch: dict, all_sum: losses.AllSum):
    """Binary cross-entropy over the rows with a known label, weighted by class.

    Args:
      config: `config.loss`.
      logits: (batch,) float32.
      batch: with label, label_weight and weight, each (batch,).
      all_sum: sums a value over all devices.

    Returns:
      The loss, () float32, and {name: (sum, count)} over the global batch.
    """
    weight = batch["weight"] * batch["label_weight"]
    value = losses.label_bce(logits, batch["label"], weight, config.label_positive_weight, all_sum)
    correct = (logits > 0) == (batch["label"] > 0.5)
    rows = all_sum(jnp.sum(weight))
    metrics = {"loss": (value * rows, rows), "accuracy": (all_sum(jnp.sum(correct * weight)), rows)}
    return config.label * value, metrics


def validate(predict: Predictor, variables: dict, cases: list[Case]) -> tuple[float, dict]:
    """The negative mean cross-entropy over patients, or over slices if labels differ within a patient; and the AUC.

    The AUC is not the score because it is too coarse: for nine validation patients it has only twenty values.
    """
    return _score(_gathered(predict, variables, cases, False))


def _score(slices: pd.DataFrame) -> tuple[float, dict]:
    table = slices if differs_within(slices) else patient_scores(slices)
    score = -float(np.logaddexp(0, table["logit"] * (1 - 2 * table["label"])).mean())
    auc, _ = delong_ci(table["label"], table["logit"])
    return score, {"loss": -score} | ({} if auc is None else {"auc": auc})


def pictures(_predict: Predictor, _variables: dict, _cases: list[Case]) -> dict[str, np.ndarray]:
    """No images: a classifier predicts no mask."""
    return {}


def choose(predict: Predictor, variables: dict, cases: list[Case], config) -> tuple[Thresholds, float]:
    """Choose test-time augmentation by the score of `validate`, and the thresholds with the highest accuracy.

    `config` is `config.eval`. If its `flip_tta` is not "choose", or its `threshold` is not 0, that value is used.

    Returns:
      The chosen options and their validation score.
    """
    tables = {flip: _gathered(predict, variables, cases, flip) for flip in CHOICES[config.flip_tta]}
    flip = max(tables, key=lambda flip: _score(tables[flip])[0])  # if equal, without mirror images
    score = _score(tables[flip])[0]
    if config.threshold:
        return Thresholds(config.threshold, config.threshold, flip), score
    patients = patient_scores(tables[flip])
    best = (best_threshold(table["label"], expit(table["logit"])) for table in (tables[flip], patients))
    return Thresholds(*best, flip), score


def evaluate(
    predict: Predictor, variables: dict, cases: Iterable[Case], chosen: Thresholds, preparation: Preparation
) -> Results:
    """Score slices and patients; the baseline is a logistic regression of BASELINE on the same patients."""
    scores = PatientScores()
    for case in tqdm.tqdm(cases, unit="volume", disable=None):
        scores.add(case, slice_table(predict, variables, case, chosen.flip_tta))
    metrics, tables, draw = scores.results(chosen, preparation)
    return Results(metrics | {"postprocessing": dataclasses.asdict(chosen)}, tables, draw)


def pool(folders: list[Path]) -> Results:
    """Score several evaluations of different patients together, with a threshold of 0.5."""
    return pool_tables(folders, "cases")


def grading_run(
    config: ml_collections.ConfigDict, workdir: Path, predict: Predictor, variables: dict, chosen: Thresholds
) -> GradingRun | None:
    """A `GradingRun` that predicts the grade of a scan with a given mask; None if the target is not the grade."""
    if config.data.target != "grade":
        return None
    grading = restored(config, workdir)

    def table(scan: Volume, mask: np.ndarray) -> pd.DataFrame:
        case = grading.case(scan, mask, np.zeros(len(mask), np.float32))
        return slice_table(predict, variables, case, chosen.flip_tta)

    return GradingRun(tuple(config.data.channels), table, chosen.patient_threshold)


def about(config: ml_collections.ConfigDict) -> dict:
    """The entries of metrics.json that describe the run."""
    masks = "predicted" if config.data.segmentation_workdir else "true"
    return {
        "target": config.data.target, "region": config.data.region,
        "masks": masks if config.data.target == "grade" else None,
    }  # fmt: skip


def slice_table(predict: Predictor, variables: dict, case: Case, flip_tta: bool = False) -> pd.DataFrame:
    """A table with one row per slice: patient, slice_index, tumour_slice, label, logit, probability."""
    return as_table(case, case_logits(predict, variables, case, flip_tta))


def case_logits(predict: Predictor, variables: dict, case: Case, flip_tta: bool) -> np.ndarray:
    """The logits of a case, (row,) float32; with `flip_tta`, the mean over each slice and its mirror image."""
    clinical = np.tile(case.clinical, (len(case.images), 1))
    logits = predict(variables, case.images, clinical)
    if flip_tta and case.images.ndim == 4:  # the features of a frozen backbone cannot be mirrored
        logits = (logits + predict(variables, case.images[:, :, ::-1], clinical)) / 2
    return logits


def headline(result: dict) -> str:
    """A summary of AUC and accuracy, from the body of metrics.json."""
    lines = [_line(f"per {name}", result[name]) for name in ("slice", "patient")]
    baselines = [(name, part) for name, part in result["baselines"].items() if "auc" in part]
    return "\n".join(lines + [_line(f"baseline ({name}), per patient", part) for name, part in baselines])


def _line(name: str, part: dict) -> str:
    auc = "AUC undefined" if part["auc"] is None else f"AUC {part['auc']:.4f}"
    interval = "" if part["auc_ci95"] is None else " (95 % CI {:.4f} to {:.4f})".format(*part["auc_ci95"])
    return (
        f"{name}: {auc}{interval}, accuracy {part['accuracy']:.4f}"
        f" (majority class {part['majority_accuracy']:.4f}), n = {part['n']}, {part['n_positive']} positive"
    )


def _gathered(predict, variables, cases: list[Case], flip_tta: bool) -> pd.DataFrame:
    """A table of the slices of all hosts' cases: patient (a number), tumour_slice, label, logit."""
    tables = [slice_table(predict, variables, case, flip_tta) for case in cases]
    rows = [np.stack([t["tumour_slice"], t["label"], t["logit"]], axis=1).astype(np.float32) for t in tables]
    # Patients are numbered, because only numbers can be gathered. Host h of H has the patients h, h + H, h + 2H, …
    first = parallel.host()[0]
    numbered = [np.insert(r, 0, first + i * parallel.host()[1], axis=1) for i, r in enumerate(rows)]
    everything = parallel.gather(np.concatenate(numbered) if numbered else np.zeros((0, 4), np.float32))
    table = pd.DataFrame(everything, columns=["patient", "tumour_slice", "label", "logit"])
    if table.empty:
        raise UserError("no validation patient has a label", "choose other validation patients")
    return table.astype({"label": int})
