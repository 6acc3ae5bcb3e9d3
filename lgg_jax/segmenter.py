"""Finished runs applied to new scans: segmentation, grade, and ensembles of either.

    segmenter = load_segmenter(["runs/cpu"])
    probability = segmenter.probability(volume)       # (slice, height, width), on the scan's own grid
    mask = segmenter.mask(probability, volume)
    grader = load_grader(["runs/grade0", "runs/grade1"])
    grader.grade(volume, mask, {"age": 44.0})         # {"grade_3_probability": 0.31, "grade": 2}
"""

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import jax
import ml_collections
import numpy as np
from scipy.special import expit

from lgg_jax import models, tasks
from lgg_jax import workdir as workdir_lib
from lgg_jax.data.cases import prepare_case
from lgg_jax.data.volume import Volume, foreground
from lgg_jax.errors import UserError
from lgg_jax.inference.predictor import Postprocessing, Predictor, case_probability, make_predictor
from lgg_jax.scans.scan import warn_without_t2
from lgg_jax.tasks.preparation import GradingRun, Segment
from lgg_jax.training.checkpoints import restore_variables


class Restored(NamedTuple):
    """A finished run: its config and task, the weights of a step, and what was chosen on validation."""

    config: ml_collections.ConfigDict
    task: tasks.Task
    variables: dict
    step: int
    chosen: Any

    def predictor(self) -> Predictor:
        """(variables, *inputs) → what the task's predictor returns."""
        return self.task.predictor(models.create_model(self.config.model), self.config.eval.batch_size)


def restore(workdir: Path, config: ml_collections.ConfigDict, step: int | None = None) -> Restored:
    """Restore the run in `workdir`, whose config is given; UserError where it has not ended.

    Args:
      step: of the checkpoint; None is the best on validation.
    """
    task = tasks.get(config.task)
    chosen = workdir_lib.read_chosen(workdir, task.CHOSEN)
    variables, step = restore_variables(workdir, step)
    return Restored(config, task, variables, step, chosen)


@dataclasses.dataclass(frozen=True)
class Run:
    """A finished run that segments: the best weights, and how it prepares a scan and makes a mask."""

    data: ml_collections.ConfigDict
    variables: dict
    predict: Predictor
    chosen: Postprocessing

    def probability(self, scan: Volume) -> np.ndarray:
        """Probability of tumour, (slice, height, width) float32."""
        warn_without_t2(scan, self.data.channels)
        case = prepare_case(scan, self.data)
        return case_probability(self.predict, self.variables, case, self.chosen.flip_tta, self.chosen.finer)


@dataclasses.dataclass(frozen=True)
class Segmenter:
    """One run or an ensemble: the mean of the probabilities, the mean of the thresholds."""

    runs: list[Run]

    def probability(self, scan: Volume) -> np.ndarray:
        """Probability of tumour, (slice, height, width) float32 on the scan's grid."""
        return np.mean([run.probability(scan) for run in self.runs], axis=0, dtype=np.float32)

    def mask(self, probability: np.ndarray, scan: Volume) -> np.ndarray:
        """(slice, height, width) float32, of this scan → bool; post-processed where most of the runs chose to."""
        chosen = [run.chosen for run in self.runs]
        names = ("largest_component", "fill_holes")
        majority = {name: bool(np.mean([getattr(each, name) for each in chosen]) > 0.5) for name in names}
        threshold = float(np.mean([each.threshold for each in chosen]))
        return Postprocessing(**majority, threshold=threshold).mask(probability, foreground(scan.image))

    def segment(self, scan: Volume) -> np.ndarray:
        """The mask of a scan, (slice, height, width) bool."""
        return self.mask(self.probability(scan), scan)


def load_segmenter(workdirs: list[str]) -> Segmenter:
    """Restore the best weights of each run; UserError where one does not segment or has not ended."""
    return Segmenter([_load_segmentation(Path(workdir)) for workdir in workdirs])


def _load_segmentation(workdir: Path) -> Run:
    config = workdir_lib.read_config(workdir)
    outputs = tasks.get(config.task).OUTPUTS
    if "mask" not in outputs:
        raise UserError(f"{workdir} holds a run of task {config.task}", "pass the workdir of a segmentation")
    run = restore(workdir, config)

    def probability(logits: jax.Array | dict) -> jax.Array:
        return jax.nn.sigmoid(logits["mask"] if len(outputs) > 1 else logits)

    predict = make_predictor(models.create_model(config.model), config.eval.batch_size, probability)
    return Run(config.data, run.variables, predict, run.chosen)


def predicted_masks(config: ml_collections.ConfigDict) -> Segment | None:
    """Segments a scan with the run in `config.data.segmentation_workdir`; None where the config names none."""
    workdir = config.data.segmentation_workdir
    return load_segmenter([workdir]).segment if workdir else None


@dataclasses.dataclass(frozen=True)
class Grader:
    """One run or an ensemble: the mean of the logits, the mean of the thresholds."""

    runs: list[GradingRun]

    def grade(self, scan: Volume, mask: np.ndarray, clinical: dict[str, float | None]) -> dict:
        """The probability of grade III and the grade that it stands for; both None where the mask is empty.

        Args:
          mask: (slice, height, width) bool, predicted.
          clinical: values by the names of `clinical.FIELDS`; a value that is not there counts as missing.
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
    """Restore the best weights of each run; UserError where one does not grade or has not ended."""
    return Grader([_load_grading(Path(workdir)) for workdir in workdirs])


def _load_grading(workdir: Path) -> GradingRun:
    config = workdir_lib.read_config(workdir)
    if not gives_grade(config.task, config.data.target):
        remedy = "pass the workdir of a configs/grade_* or configs/multitask.py run"
        raise UserError(f"{workdir} holds a run that does not grade", remedy)
    run = restore(workdir, config)
    return run.task.grading_run(config, workdir, run.predictor(), run.variables, run.chosen)


def gives_grade(task: str, target: str) -> bool:
    """Whether a run of this `config.task` and `config.data.target` gives a grade."""
    return "label" in tasks.get(task).OUTPUTS and target == "grade"
