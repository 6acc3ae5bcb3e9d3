"""Length of a run: the number of steps, from `num_steps`, `epochs` or `minutes` of `config.train`.

    steps = steps_without_clock(config.train, num_slices)                     # None if `minutes` is set
    steps = measure_steps(config.train, stages, validate, started, choice_cost(config))

For `minutes`, the duration of a step is measured before the run starts, on steps whose result is discarded. The number
of steps is written to `length.json`. The learning-rate schedule and a resumed run use this number and measure nothing.
"""

import statistics
import time
from collections.abc import Callable, Sequence

import ml_collections

from lgg_jax.errors import UserError

# Steps. The first ones are slower: memory is allocated, and the input pipeline fills its buffers on the same processor.
_WARM_UP, _MEASURED = 5, 20
# Passes through the network by config.eval.flip_tta. "choose" evaluates the slices alone, and then with mirror images.
_PASSES = {"off": 1, "on": 2, "choose": 3}


def steps_without_clock(config: ml_collections.ConfigDict, num_slices: int) -> int | None:
    """The number of steps by `config.num_steps` or `config.epochs`; None if `config.minutes` is set.

    Args:
      config: `config.train`.
      num_slices: number of training slices.

    Raises:
      UserError: not exactly one of the three fields is set.
    """
    fields = {name: config[name] for name in ("num_steps", "epochs", "minutes") if config[name]}
    if len(fields) != 1:
        raise UserError(
            f"the length of the training is {fields or 'not given'}",
            "set exactly one of config.train.num_steps, config.train.epochs and config.train.minutes",
        )
    if "epochs" in fields:
        return max(1, round(config.epochs * num_slices / config.batch_size))
    return config.num_steps or None


def choice_cost(config: ml_collections.ConfigDict) -> float:
    """The duration of the final choice of the post-processing, in validations.

    It is 1 plus the number of passes through the network, weighted by the number of pixels of each grid.
    """
    grids = sum((1 + more / config.data.size) ** 2 for more in (0, *config.eval.finer))
    return 1 + _PASSES[config.eval.flip_tta] * grids


def measure_steps(
    config: ml_collections.ConfigDict, stages: Sequence[tuple[float, Callable[[], object]]],
    validate: Callable[[], object], started: float, choice: float,
) -> int:
    """The number of steps after which the run, with validations and the final choice, has taken `config.minutes`.

    Args:
      config: `config.train`.
      stages: (share of all steps, a function that does one step of this stage and waits for it). The shares sum to 1.
        The state after these steps is discarded.
      validate: does one validation.
      started: `time.monotonic()` at the start of the command.
      choice: the result of `choice_cost`.
    """
    validate()  # compiles the validation, which is not measured
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
