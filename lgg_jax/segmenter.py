"""Trained runs and ensembles that segment and grade scans.

    segmenter = load_segmenter(["runs/cpu"])
    probability = segmenter.probability(volume)       # (slice, height, width), on the pixel grid of the scan
    mask = segmenter.mask(probability, volume)
    grader = load_grader(["runs/grade0", "runs/grade1"])
    grader.grade(volume, mask, {"age": 44.0})         # {"grade_3_probability": 0.31, "grade": 2}
"""

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import ml_collections
import numpy as np
from scipy.special import expit

from lgg_jax import models, tasks
from lgg_jax import workdir as workdir_lib
from lgg_jax.data.cases import prepare_case
from lgg_jax.data.volume import Volume, foreground
from lgg_jax.errors import UserError
from lgg_jax.inference.predictor import Postprocessing, Predictor, case_probability
from lgg_jax.scans.scan import warn_without_t2
from lgg_jax.tasks.preparation import GradingRun, Segment
from lgg_jax.training.checkpoints import restore_variables


class Restored(NamedTuple):
    """A trained run.

    Attributes:
      config: the config of the run.
      task: the module of the task.
      variables: {"params", "batch_stats"} of a checkpoint.
      step: the step of the checkpoint.
      chosen: the post-processing or the thresholds chosen on the validation set, of type `task.CHOSEN`.
    """

    config: ml_collections.ConfigDict
    task: tasks.Task
    variables: dict
    step: int
    chosen: Any

    def predictor(self) -> Predictor:
        """Return the predictor of the task: (variables, *inputs) → outputs."""
        return self.task.predictor(models.create_model(self.config.model), self.config.eval.batch_size)


def restore(workdir: Path, config: ml_collections.ConfigDict, step: int | None = None) -> Restored:
    """Restore a trained run.

    Args:
      workdir: the run directory.
      config: the config of the run.
      step: the step of the checkpoint; None for the best step on the validation set.

    Raises:
      UserError: the training is not complete.
    """
    task = tasks.get(config.task)
    variables, step = restore_variables(workdir, step)
    chosen = workdir_lib.read_chosen(workdir, task.CHOSEN)
    return Restored(config, task, variables, step, chosen)


@dataclasses.dataclass(frozen=True)
class Run:
    """A trained run that segments.

    Attributes:
      data: `config.data` of the run, for the preparation of a scan.
      variables: {"params", "batch_stats"} of the best step.
      predict: (variables, images) → probabilities.
      chosen: the post-processing chosen on the validation set.
    """

    data: ml_collections.ConfigDict
    variables: dict
    predict: Predictor
    chosen: Postprocessing

    def probability(self, scan: Volume) -> np.ndarray:
        """Return the tumour probability, (slice, height, width) float32, on the pixel grid of the scan."""
        warn_without_t2(scan, self.data.channels)
        case = prepare_case(scan, self.data)
        return case_probability(self.predict, self.variables, case, self.chosen.flip_tta, self.chosen.finer)


@dataclasses.dataclass(frozen=True)
class Segmenter:
    """One run or an ensemble, which averages the probabilities and the thresholds of its runs."""

    runs: list[Run]

    def probability(self, scan: Volume) -> np.ndarray:
        """Return the tumour probability, (slice, height, width) float32, on the pixel grid of the scan."""
        return np.mean([run.probability(scan) for run in self.runs], axis=0, dtype=np.float32)

    def mask(self, probability: np.ndarray, scan: Volume) -> np.ndarray:
        """Return the mask, (slice, height, width) bool.

        A step of the post-processing is applied if more than half of the runs chose it.

        Args:
          probability: the tumour probability, (slice, height, width) float32.
          scan: the scan that it was computed from.
        """
        chosen = [run.chosen for run in self.runs]
        names = ("largest_component", "fill_holes")
        majority = {name: bool(np.mean([getattr(each, name) for each in chosen]) > 0.5) for name in names}
        threshold = float(np.mean([each.threshold for each in chosen]))
        return Postprocessing(**majority, threshold=threshold).mask(probability, foreground(scan.image))

    def segment(self, scan: Volume) -> np.ndarray:
        """Return the mask of a scan, (slice, height, width) bool."""
        return self.mask(self.probability(scan), scan)


def load_segmenter(workdirs: list[str]) -> Segmenter:
    """Restore the best weights of each run.

    Raises:
      UserError: a run does not segment, or its training is not complete.
    """
    return Segmenter([_load_segmentation(Path(workdir)) for workdir in workdirs])


def _load_segmentation(workdir: Path) -> Run:
    config = workdir_lib.read_config(workdir)
    if "mask" not in tasks.get(config.task).OUTPUTS:
        raise UserError(f"{workdir} holds a run of task {config.task}", "pass the workdir of a segmentation run")
    run = restore(workdir, config)
    return Run(config.data, run.variables, run.task.mask_predictor(run.predictor()), run.chosen)


def predicted_masks(config: ml_collections.ConfigDict) -> Segment | None:
    """Return a function that segments a scan with the run in `data.segmentation_workdir`; None if that is empty."""
    workdir = config.data.segmentation_workdir
    return load_segmenter([workdir]).segment if workdir else None


@dataclasses.dataclass(frozen=True)
class Grader:
    """One run or an ensemble, which averages the logits and the thresholds of its runs."""

    runs: list[GradingRun]

    def grade(self, scan: Volume, mask: np.ndarray, clinical: dict[str, float | None]) -> dict:
        """Return the probability of grade III and the grade; both are None if the mask is empty.

        Args:
          scan: the scan.
          mask: the predicted mask, (slice, height, width) bool.
          clinical: {field: value} for fields of `clinical.FIELDS`. They replace the clinical values of the scan. A
            field that neither has counts as a missing value.
        """
        if not mask.any():
            return {"grade_3_probability": None, "grade": None}
        scan = dataclasses.replace(scan, clinical={**scan.clinical, **clinical})
        for run in self.runs:
            warn_without_t2(scan, run.channels)
        logit = float(np.mean([run.logit(scan, mask) for run in self.runs]))
        probability = float(expit(logit))
        threshold = float(np.mean([run.threshold for run in self.runs]))
        return {"grade_3_probability": probability, "grade": 3 if probability >= threshold else 2}


def load_grader(workdirs: list[str]) -> Grader:
    """Restore the best weights of each run.

    Raises:
      UserError: a run does not grade, or its training is not complete.
    """
    return Grader([_load_grading(Path(workdir)) for workdir in workdirs])


def _load_grading(workdir: Path) -> GradingRun:
    config = workdir_lib.read_config(workdir)
    if not gives_grade(config.task, config.data.target):
        remedy = "pass the workdir of a configs/grade_* or configs/multitask.py run"
        raise UserError(f"{workdir} holds a run that does not grade", remedy)
    run = restore(workdir, config)
    return run.task.grading_run(config, workdir, run.predictor(), run.variables, run.chosen)


def gives_grade(task: str, target: str) -> bool:
    """Return whether a run with this `config.task` and `config.data.target` predicts a grade."""
    return "label" in tasks.get(task).OUTPUTS and target == "grade"
