"""Preparation of scans for classification: region, mask, clinical values and labels of a case.

    prepared = preparation(config, workdir, segment, splits)
    case = prepared.prepare(volume)                  # None: the label of this patient is not known
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import ml_collections
import numpy as np
import pandas as pd

from lgg_jax import workdir as workdir_lib
from lgg_jax.data import cases, dataset, region, tabular
from lgg_jax.data import splits as splits_lib
from lgg_jax.data.mask_features import FEATURES, mask_features
from lgg_jax.data.volume import Volume
from lgg_jax.errors import UserError
from lgg_jax.metrics.classification import patient_scores

TARGETS = ("presence", "grade")
FILE = "tabular.json"
BASELINE = ("age", "volume_share")  # what the logistic regression that serves as baseline is given
Segment = Callable[[Volume], np.ndarray]  # a scan → its predicted mask, (slice, height, width) bool


@dataclasses.dataclass(frozen=True)
class Grading:
    """How the scans of one run become cases.

    Attributes:
      data: `config.data`.
      segment: predicts the mask of a scan; None where ground-truth masks are used for everyone.
      true_masks: patients whose ground-truth mask is used although `segment` is given.
      encoder: clinical values → numbers, None where the config names none.
    """

    data: ml_collections.ConfigDict
    segment: Segment | None
    true_masks: frozenset[str] = frozenset()
    encoder: tabular.Encoder | None = None

    def prepare(self, scan: Volume) -> cases.Case | None:
        """The case of one scan: for `grade` the slices with tumour (all, where none is found), else all slices."""
        label = self.label(scan)
        return None if label is None else self.case(scan, self.mask(scan), label)

    def case(self, scan: Volume, mask: np.ndarray | None, label: np.ndarray) -> cases.Case:
        """The case of a scan with this mask (slice, height, width) bool and labels (slice,)."""
        values = self.values(scan, mask)
        images = region.region_images(scan, mask, self.data)
        geometry = region.region_geometry(scan, mask, self.data)
        clinical = None if self.encoder is None else self.encoder.encode(values)
        case = cases.make_case(dataclasses.replace(scan, mask=mask), geometry, images, label, clinical)
        case = dataclasses.replace(case, scan=dataclasses.replace(scan, clinical=values))
        return case.select(case.tumour) if self.data.target == "grade" and case.tumour.any() else case

    def label(self, scan: Volume) -> np.ndarray | None:
        """(slice,) float32, the label of each slice; None where it is not known."""
        if self.data.target == "presence":
            return None if scan.mask is None else scan.mask.any(axis=(1, 2)).astype(np.float32)
        grade = scan.clinical.get("grade")
        return None if grade is None else np.full(len(scan.image), grade > 2, np.float32)

    def mask(self, scan: Volume) -> np.ndarray | None:
        """(slice, height, width) bool, the predicted or the ground-truth mask; see the table of `preparation`."""
        if self.segment is None or scan.patient in self.true_masks:
            return scan.mask
        return self.segment(scan)

    def values(self, scan: Volume, mask: np.ndarray | None) -> dict:
        """Clinical values by name and, for `grade`, the features of the mask; None where missing."""
        features = mask_features(scan, mask) if self.data.target == "grade" and mask is not None else None
        return {**dict.fromkeys(FEATURES), **scan.clinical, **(features or {})}


@dataclasses.dataclass(frozen=True)
class Preparation:
    """`prepare`, and what a workdir must keep so that an evaluation prepares alike: {file name: content}."""

    prepare: Callable[[Volume], cases.Case | None]
    files: dict[str, dict] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class GradingRun:
    """A finished run that grades a scan whose mask is given.

    Attributes:
      channels: the sequences that its network takes, `config.data.channels`.
      table: (scan, mask) → a row a slice, the columns of `classification.slice_table`.
      threshold: of the probability of grade III.
    """

    channels: tuple[str, ...]
    table: Callable[[Volume, np.ndarray], pd.DataFrame]
    threshold: float

    def logit(self, scan: Volume, mask: np.ndarray) -> float:
        """The patient's score: the mean logit over the slices with tumour."""
        return float(patient_scores(self.table(scan, mask))["logit"].iloc[0])


def check_data(config: ml_collections.ConfigDict) -> None:
    """UserError where `config.data` asks for what there is not."""
    for name, known in (("target", TARGETS), ("region", region.REGIONS), ("train_masks", ("true", "predicted"))):
        if config[name] not in known:
            raise UserError(f"config.data.{name}={config[name]!r} is not known", f"use one of {', '.join(known)}")
    if config.target == "presence" and config.region != "slice":
        raise UserError(
            f"config.data.region={config.region} with target=presence: the region would show the answer",
            "use config.data.region=slice",
        )
    if config.train_masks == "predicted" and not config.segmentation_workdir:
        raise UserError(
            "config.data.train_masks=predicted, but config.data.segmentation_workdir names no run that predicts them",
            "pass --config.data.segmentation_workdir=W, the workdir of a segmentation",
        )
    if config.tabular and config.target == "presence" and set(config.tabular) & set(FEATURES):
        raise UserError(
            "mask features with target=presence would show the answer", "leave them out of config.data.tabular"
        )


def preparation(
    config: ml_collections.ConfigDict, workdir: Path, segment: Segment | None, splits: dict | None = None
) -> Preparation:
    """How the run in `workdir` prepares its scans.

    Which mask gives a patient's region and mask features:

        segment   data.train_masks   training patients, while training   all others, and every evaluation
        None      "true"             ground truth                        ground truth
        given     "true"             ground truth                        predicted
        given     "predicted"        predicted                           predicted

    Args:
      segment: predicts masks with the run in `config.data.segmentation_workdir`; None where the config names none.
      splits: of the training; None for an evaluation.
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
    """How the run in `workdir` prepares a scan whose mask the caller has."""
    content = workdir_lib.read_json(workdir / FILE, "train again")
    return Grading(config.data, None, encoder=_encoder(config, content))


def _encoder(config: ml_collections.ConfigDict, content: dict) -> tabular.Encoder | None:
    return tabular.Encoder.from_dict(content["encoder"]) if config.data.tabular else None


def _fit(grading: Grading, config: ml_collections.ConfigDict, training: dict) -> dict:
    """{"encoder": fitted to the training patients, "training": BASELINE and label of each, for the baseline}."""
    rows, labels = [], []
    for scan in dataset.load_volumes(config.data, sorted(training)):
        label, values = grading.label(scan), grading.values(scan, grading.mask(scan))
        if label is not None:
            rows.append(values)
            labels.append({name: values.get(name) for name in BASELINE} | {"label": int(label.max())})
    encoder = tabular.fit(rows, tuple(config.data.tabular)).to_dict() if config.data.tabular else None
    return {"encoder": encoder, "training": labels}
