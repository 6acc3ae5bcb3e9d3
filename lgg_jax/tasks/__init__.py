"""The table of tasks, and the interface that each of them has.

    task = tasks.get(config.task)
    task.validate(predict, variables, cases)

To add a task: write a module with everything that `Task` declares, add it to `TASKS`, and add a config and a test. A
module that lacks something fails when this package is imported.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

import jax
import ml_collections
import numpy as np
from flax import linen as nn

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
    """What train, evaluate, predict and export call of a task.

    `CHOSEN` is a dataclass of what is chosen on validation. Its instances are called `chosen` below.
    """

    OUTPUTS: tuple[str, ...]  # the logits that its network must return: "mask" of each pixel, "label" of each slice
    SCORE: str  # the name of the validation score; higher is better
    CHOSEN: type

    def check(self, config: ml_collections.ConfigDict) -> None:
        """Raise UserError where the config asks for what the task does not have."""

    def preparation(
        self, config: ml_collections.ConfigDict, workdir: Path, segment: Segment | None, splits: dict | None
    ) -> Preparation:
        """Return how a scan becomes a case; with `splits` for training, without for evaluation."""

    def inputs(self, batch: dict) -> tuple:
        """Return what the network takes of a batch."""

    def predictor(self, model: nn.Module, batch_size: int) -> Predictor:
        """Return (variables, *inputs) → the network's outputs as NumPy arrays."""

    def cached(
        self, config: ml_collections.ConfigDict, variables: dict, slices: Slices, cases: list[Case], model: nn.Module
    ) -> tuple[Slices, list[Case]]:
        """Return training slices and validation cases with what can be computed once, before the first step."""

    def loss(self, config: ml_collections.ConfigDict, logits, batch: dict, all_sum: AllSum) -> tuple[jax.Array, dict]:
        """Return the loss, () float32, and {name: (sum, count)} over the global batch; `config` is `config.loss`."""

    def validate(self, predict: Predictor, variables: dict, cases: list[Case]) -> tuple[float, dict]:
        """Return the validation score and {name: value} to be logged."""

    def pictures(self, predict: Predictor, variables: dict, cases: list[Case]) -> dict[str, np.ndarray]:
        """Return {name: (n, height, width, 3) uint8} to be logged."""

    def choose(self, predict: Predictor, variables: dict, cases: list[Case], config: ml_collections.ConfigDict):
        """Return what is chosen on validation, and its score; `config` is `config.eval`."""

    def evaluate(
        self, predict: Predictor, variables: dict, cases: Iterable[Case], chosen, preparation: Preparation
    ) -> Results:
        """Score cases, which are read one at a time."""

    def pool(self, folders: list[Path]) -> Results:
        """Score several evaluations of different patients together, from the tables in their folders."""

    def about(self, config: ml_collections.ConfigDict) -> dict:
        """Return what metrics.json states of the run."""

    def headline(self, result: dict) -> str:
        """Return a few lines for a person, from the body of metrics.json."""

    def grading_run(
        self, config: ml_collections.ConfigDict, workdir: Path, predict: Predictor, variables: dict, chosen
    ) -> GradingRun | None:
        """Return how the run grades a scan whose mask is given; None where the task gives no grade."""


TASKS = {name: provides(module, Task) for name, module in
         {"segmentation": segmentation, "classification": classification, "joint": joint}.items()}  # fmt: skip


def get(name: str) -> Task:
    """The task of `config.task`; UserError where there is none."""
    if name not in TASKS:
        raise UserError(f"config.task={name!r} is not known", f"use one of {', '.join(TASKS)}")
    return TASKS[name]


def check_splits(splits: dict, config: ml_collections.ConfigDict) -> None:
    """Raise UserError for a split by slice of a task that scores whole volumes."""
    if splits["by"] == "slice" and "mask" in get(config.task).OUTPUTS:
        raise UserError(
            f"a split by slice with config.task={config.task}, which scores whole volumes",
            "use a split by patient, or task classification",
        )
