"""Preparation of scans for classification: region, mask, clinical values and labels of a case.

    prepared = preparation(config, workdir, segment, splits)
    case = prepared.prepare(volume)                  # None if the label of this patient is unknown
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import ml_collections
import numpy as np
import pandas as pd

from lgg_jax import workdir as workdir_lib
from lgg_jax.config import check_choice
from lgg_jax.data import cases, dataset, region, tabular
from lgg_jax.data import splits as splits_lib
from lgg_jax.data.mask_features import FEATURES, mask_features
from lgg_jax.data.volume import Volume
from lgg_jax.errors import UserError
from lgg_jax.metrics.classification import patient_scores

TARGETS = ("presence", "grade")
FILE = "tabular.json"
BASELINE = ("age", "volume_share")  # inputs of the baseline, a logistic regression
Segment = Callable[[Volume], np.ndarray]  # a scan → its predicted mask, (slice, height, width) bool


@dataclasses.dataclass(frozen=True)
class Grading:
    """Turns the scans of a classification run into cases.

    Attributes:
      data: `config.data`.
      segment: predicts the mask of a scan; None to use the ground-truth masks of all patients.
      true_masks: patients whose ground-truth mask is used even with `segment`.
      encoder: encodes clinical values as numbers; None if `data.tabular` is empty.
    """

    data: ml_collections.ConfigDict
    segment: Segment | None
    true_masks: frozenset[str] = frozenset()
    encoder: tabular.Encoder | None = None

    def prepare(self, scan: Volume) -> cases.Case | None:
        """The case of a scan, or None if its label is unknown.

        For the target "grade" it has the slices with tumour, or all slices if none has tumour. For "presence" it has
        all slices.
        """
        label = self.label(scan)
        return None if label is None else self.case(scan, self.mask(scan), label)

    def case(self, scan: Volume, mask: np.ndarray | None, label: np.ndarray) -> cases.Case:
        """The case of a scan with the mask (slice, height, width) bool and the labels (slice,)."""
        values = self.values(scan, mask)
        images = region.region_images(scan, mask, self.data)
        geometry = region.region_geometry(scan, mask, self.data)
        clinical = None if self.encoder is None else self.encoder.encode(values)
        case = cases.make_case(dataclasses.replace(scan, mask=mask), geometry, images, label, clinical)
        case = dataclasses.replace(case, scan=dataclasses.replace(scan, clinical=values))
        return case.select(case.tumour) if self.data.target == "grade" and case.tumour.any() else case

    def label(self, scan: Volume) -> np.ndarray | None:
        """The label of each slice, (slice,) float32; None if it is unknown."""
        if self.data.target == "presence":
            return None if scan.mask is None else scan.mask.any(axis=(1, 2)).astype(np.float32)
        grade = scan.clinical.get("grade")
        return None if grade is None else np.full(len(scan.image), grade > 2, np.float32)

    def mask(self, scan: Volume) -> np.ndarray | None:
        """The predicted or the ground-truth mask, (slice, height, width) bool; see the table in `preparation`."""
        if self.segment is None or scan.patient in self.true_masks:
            return scan.mask
        return self.segment(scan)

    def values(self, scan: Volume, mask: np.ndarray | None) -> dict:
        """Clinical values by name and, for the target "grade", the features of the mask; missing values are None."""
        features = mask_features(scan, mask) if self.data.target == "grade" and mask is not None else None
        return {**dict.fromkeys(FEATURES), **scan.clinical, **(features or {})}


@dataclasses.dataclass(frozen=True)
class Preparation:
    """The preparation of a run.

    Attributes:
      prepare: turns a scan into a case; returns None if the label is unknown.
      files: {file name: content} that the workdir stores, so that an evaluation prepares scans in the same way.
    """

    prepare: Callable[[Volume], cases.Case | None]
    files: dict[str, dict] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class GradingRun:
    """A trained run that predicts the grade of a scan with a given mask.

    Attributes:
      channels: the sequences that the network takes, `config.data.channels`.
      table: (scan, mask) → a table with one row per slice and the columns of `classification.slice_table`.
      threshold: patients with a probability of grade III at or above it are predicted as grade III.
    """

    channels: tuple[str, ...]
    table: Callable[[Volume, np.ndarray], pd.DataFrame]
    threshold: float

    def logit(self, scan: Volume, mask: np.ndarray) -> float:
        """The score of the patient: the mean logit over the slices with tumour."""
        return float(patient_scores(self.table(scan, mask))["logit"].iloc[0])


def check_data(config: ml_collections.ConfigDict) -> None:
    """Raise UserError if a field of `config.data` is unknown, or if the input of the network would reveal the label."""
    for name, known in (("target", TARGETS), ("region", region.REGIONS), ("train_masks", ("true", "predicted"))):
        check_choice(f"data.{name}", config[name], known)
    if config.target == "presence" and config.region != "slice":
        raise UserError(
            f"config.data.region={config.region} with config.data.target=presence: the region reveals the label",
            "use config.data.region=slice",
        )
    if config.train_masks == "predicted" and not config.segmentation_workdir:
        raise UserError(
            "config.data.train_masks=predicted, but config.data.segmentation_workdir names no run that predicts them",
            "pass --config.data.segmentation_workdir=W, the workdir of a segmentation run",
        )
    if config.tabular and config.target == "presence" and set(config.tabular) & set(FEATURES):
        raise UserError(
            "mask features in config.data.tabular with config.data.target=presence: they reveal the label",
            "remove the mask features, or use config.data.target=grade",
        )


def preparation(
    config: ml_collections.ConfigDict, workdir: Path, segment: Segment | None, splits: dict | None = None
) -> Preparation:
    """The preparation of scans for the run in `workdir`.

    The mask that determines the region and the mask features of a patient:

        segment   data.train_masks   training patients in training   all other patients, and in evaluation
        None      "true"             ground truth                    ground truth
        given     "true"             ground truth                    predicted
        given     "predicted"        predicted                       predicted

    Args:
      config: the config of the run.
      workdir: the folder of the run. If the run has started, its encoder is read from there.
      segment: predicts masks with the run in `config.data.segmentation_workdir`; None if that field is empty.
      splits: the splits of a training; None for an evaluation.
    """
    training = splits_lib.members(splits, "train") if splits else {}
    true_masks = frozenset(training) if config.data.train_masks == "true" else frozenset()
    grading = Grading(config.data, segment, true_masks)
    if config.data.target != "grade" and not config.data.tabular:
        return Preparation(grading.prepare)
    if workdir_lib.started(workdir):
        content = workdir_lib.read_json(workdir / FILE, "remove the workdir and train again")
    else:
        content = _fit(grading, config, training)
    return Preparation(dataclasses.replace(grading, encoder=_encoder(config, content)).prepare, {FILE: content})


def restored(config: ml_collections.ConfigDict, workdir: Path) -> Grading:
    """The preparation of the run in `workdir` for scans with given masks."""
    content = workdir_lib.read_json(workdir / FILE, "train again")
    return Grading(config.data, None, encoder=_encoder(config, content))


def _encoder(config: ml_collections.ConfigDict, content: dict) -> tabular.Encoder | None:
    return tabular.Encoder.from_dict(content["encoder"]) if config.data.tabular else None


def _fit(grading: Grading, config: ml_collections.ConfigDict, training: dict) -> dict:
    """The content of tabular.json, from the training patients.

    Returns:
      {"encoder": the encoder of the clinical values, "training": [the values in BASELINE and the label of a patient]}.
    """
    rows, labels = [], []
    for scan in dataset.load_volumes(config.data, sorted(training)):
        label, values = grading.label(scan), grading.values(scan, grading.mask(scan))
        if label is not None:
            rows.append(values)
            labels.append({name: values.get(name) for name in BASELINE} | {"label": int(label.max())})
    encoder = tabular.fit(rows, tuple(config.data.tabular)).to_dict() if config.data.tabular else None
    return {"encoder": encoder, "training": labels}
