"""Finished grade runs, restored and applied to new scans; several of them are an ensemble.

    grader = load_grader(["runs/grade0", "runs/grade1"])
    grader.grade(volume, mask, {"age": 44.0})      # {"grade_3_probability": 0.31, "grade": 2}
"""

import dataclasses
from pathlib import Path

import ml_collections
import numpy as np
from scipy.special import expit

from lgg_jax import models, tasks
from lgg_jax import workdir as workdir_lib
from lgg_jax.data.cases import prepare_case
from lgg_jax.data.volume import Volume
from lgg_jax.errors import UserError
from lgg_jax.inference.predictor import Predictor
from lgg_jax.metrics.classification import patient_scores
from lgg_jax.scans.scan import warn_without_t2
from lgg_jax.tasks import classification, joint
from lgg_jax.tasks import preparation as grading
from lgg_jax.training.checkpoints import restore_variables


@dataclasses.dataclass(frozen=True)
class Run:
    """The best weights of one run, and how it sees a scan."""

    grading: grading.Grading
    variables: dict
    predict: Predictor
    threshold: float
    flip_tta: bool = False

    def logit(self, scan: Volume, mask: np.ndarray) -> float:
        """The patient's score: the mean over the slices with tumour."""
        warn_without_t2(scan, self.grading.data.channels)
        case = self.grading.case(scan, mask, np.zeros(len(mask), np.float32))
        slices = classification.slice_table(self.predict, self.variables, case, self.flip_tta)
        return float(patient_scores(slices)["logit"].iloc[0])


@dataclasses.dataclass(frozen=True)
class JointRun:
    """The same of a run that outlines as well: it sees whole slices and takes no clinical values."""

    data: ml_collections.ConfigDict
    variables: dict
    predict: Predictor
    threshold: float = classification.Thresholds.patient_threshold

    def logit(self, scan: Volume, mask: np.ndarray) -> float:
        """The patient's score: the mean over the slices with tumour."""
        warn_without_t2(scan, self.data.channels)
        case = dataclasses.replace(prepare_case(scan, self.data), labels=np.zeros(len(mask), np.float32))
        slices = joint.slice_table(self.predict, self.variables, case, mask)
        return float(patient_scores(slices)["logit"].iloc[0])


@dataclasses.dataclass(frozen=True)
class Grader:
    """One run, or an ensemble: the mean of its logits, the mean of its thresholds."""

    runs: list[Run | JointRun]

    def grade(self, scan: Volume, mask: np.ndarray, clinical: dict[str, float | None]) -> dict:
        """The probability of grade III and the grade that it stands for; both None where there is no tumour.

        Args:
          mask: (slice, height, width) bool, predicted.
          clinical: values by the names of `clinical.FIELDS`; what is not there counts as missing.
        """
        if not mask.any():
            return {"grade_3_probability": None, "grade": None}
        scan = dataclasses.replace(scan, clinical={**scan.clinical, **clinical})
        logit = float(np.mean([run.logit(scan, mask) for run in self.runs]))
        probability = float(expit(logit))
        threshold = float(np.mean([run.threshold for run in self.runs]))
        return {"grade_3_probability": probability, "grade": 3 if probability >= threshold else 2}


def load_grader(workdirs: list[str]) -> Grader:
    """Restores the best weights of each run; UserError where one does not grade or has not ended."""
    return Grader([_load(Path(workdir)) for workdir in workdirs])


def _load(workdir: Path) -> Run | JointRun:
    config = workdir_lib.read_config(workdir)
    if config.task not in ("classification", "joint") or config.data.target != "grade":
        remedy = "pass the workdir of a configs/grade_* or configs/multitask.py run"
        raise UserError(f"{workdir} holds a run that does not grade", remedy)
    task, (variables, _) = tasks.get(config.task), restore_variables(workdir)
    chosen = workdir_lib.read_chosen(workdir, task.CHOSEN)
    predict = task.predictor(models.create_model(config.model), config.eval.batch_size)
    if config.task == "joint":
        return JointRun(config.data, variables, predict)
    return Run(grading.restored(config, workdir), variables, predict, chosen.patient_threshold, chosen.flip_tta)
