"""Tasks by name: the table `TASKS`, and the interface `Task` that every task implements.

    task = tasks.get(config.task)
    task.validate(predict, variables, cases)

To add a task:

1. Write a module in this folder with everything that `Task` declares.
2. Add it to `TASKS`. If the module lacks a part of `Task`, the import of this package raises TypeError.
3. Add a config, configs/<name>.py. Its docstring states the command and the result.
4. Add a test, tests/tasks/test_<name>.py.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

import jax
import ml_collections
import numpy as np
from flax import linen as nn

from lgg_jax.config import check_choice
from lgg_jax.data.cases import Case
from lgg_jax.data.pipeline import Slices
from lgg_jax.errors import UserError
from lgg_jax.inference.predictor import Predictor
from lgg_jax.protocols import provides
from lgg_jax.tasks import classification, joint, segmentation
from lgg_jax.tasks.preparation import GradingRun, Preparation, Segment
from lgg_jax.tasks.results import Results
from lgg_jax.training.losses import AllSum


class Task(Protocol):
    """The interface of a task. Training, evaluation, prediction and export use it.

    Attributes:
      OUTPUTS: the logits that the network must return: "mask" for each pixel, "label" for each slice.
      SCORE: the name of the validation score; higher is better.
      CHOSEN: a dataclass of the options that are chosen on the validation set. Its instances are called `chosen` below.
    """

    OUTPUTS: tuple[str, ...]
    SCORE: str
    CHOSEN: type

    def check(self, config: ml_collections.ConfigDict) -> None:
        """Raise UserError if the config requests something that the task does not support."""

    def preparation(
        self, config: ml_collections.ConfigDict, workdir: Path, segment: Segment | None, splits: dict | None
    ) -> Preparation:
        """Return how scans are turned into cases.

        Args:
          config: the config of the run.
          workdir: the folder of the run.
          segment: predicts the mask of a scan; None if `config.data.segmentation_workdir` is empty.
          splits: the splits of a training; None for an evaluation.
        """

    def inputs(self, batch: dict) -> tuple:
        """Return the inputs of the network from a batch."""

    def predictor(self, model: nn.Module, batch_size: int) -> Predictor:
        """Return a function (variables, *inputs) → outputs of the network as NumPy arrays."""

    def mask_predictor(self, predict: Predictor) -> Predictor | None:
        """Return (variables, images) → tumour probabilities, from the task's predictor; None without a mask."""

    def cached(
        self, config: ml_collections.ConfigDict, variables: dict, slices: Slices, cases: list[Case], model: nn.Module
    ) -> tuple[Slices, list[Case]]:
        """Return the training slices and validation cases with everything that is computed once before training."""

    def loss(self, config: ml_collections.ConfigDict, logits, batch: dict, all_sum: AllSum) -> tuple[jax.Array, dict]:
        """Return the loss, () float32, and the metrics {name: (sum, count)}, both over the global batch.

        Args:
          config: `config.loss`.
          logits: the outputs of the network for this device's shard of the batch.
          batch: the shard of the batch, see `data.pipeline`.
          all_sum: sums a value over all devices.
        """

    def validate(self, predict: Predictor, variables: dict, cases: list[Case]) -> tuple[float, dict]:
        """Return the validation score and the values to log, {name: value}."""

    def pictures(self, predict: Predictor, variables: dict, cases: list[Case]) -> dict[str, np.ndarray]:
        """Return the images to log, {name: (n, height, width, 3) uint8}."""

    def choose(self, predict: Predictor, variables: dict, cases: list[Case], config: ml_collections.ConfigDict):
        """Return the options with the best validation score, and this score; `config` is `config.eval`."""

    def evaluate(
        self, predict: Predictor, variables: dict, cases: Iterable[Case], chosen, preparation: Preparation
    ) -> Results:
        """Return the scores of the cases, which are read one at a time."""

    def pool(self, folders: list[Path]) -> Results:
        """Return the joint scores of several evaluations of different patients, from the tables in their folders."""

    def about(self, config: ml_collections.ConfigDict) -> dict:
        """Return the entries of metrics.json that describe the run."""

    def headline(self, result: dict) -> str:
        """Return a summary of a few lines, from the body of metrics.json."""

    def grading_run(
        self, config: ml_collections.ConfigDict, workdir: Path, predict: Predictor, variables: dict, chosen
    ) -> GradingRun | None:
        """Return a `GradingRun` that predicts the grade of a scan with a given mask; None if the run has no grade."""


TASKS = {name: provides(module, Task) for name, module in
         {"segmentation": segmentation, "classification": classification, "joint": joint}.items()}  # fmt: skip


def get(name: str) -> Task:
    """The task for `config.task`; raises UserError if the name is unknown."""
    check_choice("task", name, TASKS)
    return TASKS[name]


def check_splits(splits: dict, config: ml_collections.ConfigDict) -> None:
    """Raise UserError if the data is split by slice and the task scores whole volumes."""
    if splits["by"] == "slice" and "mask" in get(config.task).OUTPUTS:
        raise UserError(
            f"a split by slice with config.task={config.task}, which scores whole volumes",
            "use a split by patient, or task classification",
        )
