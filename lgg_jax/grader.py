"""Finished grade runs, restored and applied to new scans; several of them are an ensemble.

    grader = load_grader(["runs/grade0", "runs/grade1"])
    grader.grade(volume, mask, {"age": 44.0})      # {"grade_3_probability": 0.31, "grade": 2}
"""

import dataclasses
from pathlib import Path

import numpy as np
from scipy.special import expit

from lgg_jax import diagnostics, inference, models
from lgg_jax import workdir as workdir_lib
from lgg_jax.checkpoints import restore_variables
from lgg_jax.data import grading
from lgg_jax.data.volume import Volume
from lgg_jax.errors import UserError
from lgg_jax.tasks import classification


@dataclasses.dataclass(frozen=True)
class Run:
    """The best weights of one run, and how it sees a scan."""

    grading: grading.Grading
    variables: dict
    predict: inference.Predictor
    threshold: float

    def logit(self, scan: Volume, mask: np.ndarray) -> float:
        """The patient's score: the mean over the slices with tumour."""
        case = self.grading.case(scan, mask, np.zeros(len(mask), np.float32))
        slices = classification.slice_table(self.predict, self.variables, case)
        return float(diagnostics.patient_scores(slices)["logit"].iloc[0])


@dataclasses.dataclass(frozen=True)
class Grader:
    """One run, or an ensemble: the mean of its logits, the mean of its thresholds."""

    runs: list[Run]

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


def _load(workdir: Path) -> Run:
    config = workdir_lib.read_config(workdir)
    if config.task != "classification" or config.data.target != "grade":
        raise UserError(f"{workdir} holds a run that does not grade", "pass the workdir of a configs/grade_* run")
    variables, _ = restore_variables(workdir)
    chosen = workdir_lib.read_chosen(workdir, classification.CHOSEN)
    predict = classification.predictor(models.create_model(config.model), config.eval.batch_size)
    return Run(grading.restored(config, workdir), variables, predict, chosen.patient_threshold)
