"""How long a run is: steps, epochs or minutes, resolved once into a number of steps.

Minutes become steps through the rate that is measured on throw-away steps before the run starts. The number is
written to `length.json`: the schedule and every resume use that number, never the clock.
"""

import statistics
import time
from collections.abc import Callable, Sequence

import ml_collections

from lgg_jax.errors import UserError

_WARM_UP, _MEASURED = 5, 20  # steps; the first ones fault memory in and share the processor with the filling pipeline
_PASSES = {"off": 1, "on": 2, "choose": 3}  # through the network, by config.eval.flip_tta: as it is, mirrored, or both


def steps_without_clock(config: ml_collections.ConfigDict, num_slices: int) -> int | None:
    """Steps by `config.num_steps` or `config.epochs`; None where `config.minutes` decides."""
    given = {name: config[name] for name in ("num_steps", "epochs", "minutes") if config[name]}
    if len(given) != 1:
        raise UserError(
            f"the length of the training is {given or 'not given'}",
            "set exactly one of config.train.num_steps, config.train.epochs and config.train.minutes",
        )
    if "epochs" in given:
        return max(1, round(config.epochs * num_slices / config.batch_size))
    return config.num_steps or None


def choice_cost(config: ml_collections.ConfigDict) -> float:
    """How many validations the choice of the post-processing takes at the end: its passes, by pixels, and 1 beside."""
    grids = sum((1 + more / config.data.size) ** 2 for more in (0, *config.eval.finer))
    return 1 + _PASSES[config.eval.flip_tta] * grids


def measure_steps(
    config: ml_collections.ConfigDict, stages: Sequence[tuple[float, Callable[[], object]]],
    validate: Callable[[], object], started: float, choice: float,
) -> int:
    """The number of steps that, with their validations, end `config.minutes` after `started`.

    Args:
      config: `config.train`.
      stages: (share of the steps, a function that does one such throw-away step and waits for it), adding up to 1.
      validate: does one validation.
      started: `time.monotonic()` when the command began.
      choice: of `choice_cost`.
    """
    validate()  # compiles
    a_validation = _seconds(validate)
    a_step = sum(share * _step_seconds(step) for share, step in stages)
    left = config.minutes * 60 - (time.monotonic() - started) - choice * a_validation
    return max(1, int(left / (a_step + a_validation / config.eval_every)))


def _step_seconds(step: Callable[[], object]) -> float:
    return statistics.median([_seconds(step) for _ in range(_WARM_UP + _MEASURED)][_WARM_UP:])


def _seconds(function: Callable[[], object]) -> float:
    start = time.monotonic()
    function()
    return time.monotonic() - start
