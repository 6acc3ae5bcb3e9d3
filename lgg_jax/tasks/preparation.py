"""From a scan to what a classifier sees of it, and what it is to say.

    prepared = preparation(config, workdir, splits)
    case = prepared.prepare(volume)                  # None: the label of this patient is not known
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import ml_collections
import numpy as np

from lgg_jax import workdir as workdir_lib
from lgg_jax.data import cases, dataset, region, tabular
from lgg_jax.data import splits as splits_lib
from lgg_jax.data.mask_features import FEATURES, mask_features
from lgg_jax.data.volume import Volume
from lgg_jax.errors import UserError
from lgg_jax.segmenter import load_segmenter

TARGETS = ("presence", "grade")
FILE = "tabular.json"
BASELINE = ("age", "volume_share")  # what a logistic regression is given, to compare with


@dataclasses.dataclass(frozen=True)
class Grading:
    """How the scans of one run become cases.

    Attributes:
      data: `config.data`.
      segment: a scan → the predicted mask, where the config names a segmentation workdir.
      true_masks: patients whose drawn mask is used all the same, to train on.
      encoder: clinical values → numbers, None where the config names none.
    """

    data: ml_collections.ConfigDict
    segment: Callable[[Volume], np.ndarray] | None
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
        """(slice,) float32 of what the classifier is to say; None where nobody knows."""
        if self.data.target == "presence":
            return None if scan.mask is None else scan.mask.any(axis=(1, 2)).astype(np.float32)
        grade = scan.clinical.get("grade")
        return None if grade is None else np.full(len(scan.image), grade > 2, np.float32)

    def mask(self, scan: Volume) -> np.ndarray | None:
        """(slice, height, width) bool: predicted where there is a segmentation run, else as it was drawn."""
        if self.segment is None or scan.patient in self.true_masks:
            return scan.mask
        return self.segment(scan)

    def values(self, scan: Volume, mask: np.ndarray | None) -> dict:
        """Clinical values by name and, for `grade`, what the mask tells of the tumour; None where missing."""
        features = mask_features(scan, mask) if self.data.target == "grade" and mask is not None else None
        return {**dict.fromkeys(FEATURES), **scan.clinical, **(features or {})}


@dataclasses.dataclass(frozen=True)
class Preparation:
    """`prepare`, and what a workdir must keep so that an evaluation prepares alike: {file name: content}."""

    prepare: Callable[[Volume], cases.Case | None]
    files: dict[str, dict] = dataclasses.field(default_factory=dict)


def check(config: ml_collections.ConfigDict) -> None:
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


def preparation(config: ml_collections.ConfigDict, workdir: Path, splits: dict | None = None) -> Preparation:
    """How the run in `workdir` prepares its scans; for a new run, with what the training patients of `splits` show."""
    segmentation = config.data.segmentation_workdir
    segment = load_segmenter([segmentation]).segment if segmentation else None
    drawn = splits_lib.members(splits, "train") if splits and config.data.train_masks == "true" else ()
    grading = Grading(config.data, segment, frozenset(drawn))
    if config.data.target != "grade" and not config.data.tabular:
        return Preparation(grading.prepare)
    if workdir_lib.started(workdir):
        content = workdir_lib.read_json(workdir / FILE, "remove the workdir and train again")
    else:
        content = _fit(grading, config, splits)
    encoder = tabular.Encoder.from_dict(content["encoder"]) if config.data.tabular else None
    return Preparation(dataclasses.replace(grading, encoder=encoder).prepare, {FILE: content})


def restored(config: ml_collections.ConfigDict, workdir: Path) -> Grading:
    """How the run in `workdir` sees a scan whose mask the caller has."""
    content = workdir_lib.read_json(workdir / FILE, "train again")
    encoder = tabular.Encoder.from_dict(content["encoder"]) if config.data.tabular else None
    return Grading(config.data, None, encoder=encoder)


def _fit(grading: Grading, config: ml_collections.ConfigDict, splits: dict) -> dict:
    """{"encoder": of the training patients' values, "training": BASELINE and label of each, for the baseline}."""
    rows, training = [], []
    for scan in dataset.load_volumes(config.data, sorted(splits_lib.members(splits, "train"))):
        label, values = grading.label(scan), grading.values(scan, grading.mask(scan))
        if label is not None:
            rows.append(values)
            training.append({name: values.get(name) for name in BASELINE} | {"label": int(label.max())})
    encoder = tabular.fit(rows, tuple(config.data.tabular)).to_dict() if config.data.tabular else None
    return {"encoder": encoder, "training": training}
