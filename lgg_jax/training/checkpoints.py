"""Checkpoints of a training run; the only module that imports Orbax.

    with Checkpoints(workdir) as checkpoints:
        checkpoints.save(step, state, progress)                # returns at once; a background thread writes
    variables, step = restore_variables(workdir)               # on any machine; the best step by default

`checkpoints/<step>/` has this name only once it is complete. The latest and the best checkpoint by validation score
are kept. An older one is deleted only after the next one is complete.
"""

import contextlib
import dataclasses
import logging
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import jax
import orbax.checkpoint as ocp

from lgg_jax import parallel
from lgg_jax.errors import UserError
from lgg_jax.training.state import TrainState


@dataclasses.dataclass(frozen=True)
class Progress:
    """What the training loop must know, besides the state, to resume as if it had never stopped."""

    best_score: float = float("-inf")
    best_step: int = -1
    stale: int = 0  # validations since the best one

    def after(self, step: int, score: float) -> "Progress":
        """The progress after one more validation. Of two equal scores, the later one is the best."""
        if score >= self.best_score:
            return Progress(score, step, 0)
        return dataclasses.replace(self, stale=self.stale + 1)


class _LatestAndBest:
    """Orbax preservation policy that keeps the latest checkpoint and the best one.

    `Checkpoints.save` passes the best step as a metric of the latest checkpoint. Orbax keeps this metric in memory; it
    writes metrics only where a `best_fn` is set. Orbax's own policy `BestN` forgets the best checkpoint when a run is
    resumed.
    """

    def should_preserve(self, checkpoints, *, context) -> list[bool]:
        del context
        latest = checkpoints[-1]
        return [checkpoint.step in (latest.step, latest.metrics["best_step"]) for checkpoint in checkpoints]


class Checkpoints:
    """The checkpoints of one run: a context manager that waits for the last write when it exits."""

    def __init__(self, workdir: str | Path):
        self._quiet = _orbax_quiet()
        self._quiet.__enter__()
        options = ocp.CheckpointManagerOptions(preservation_policy=_LatestAndBest(), cleanup_tmp_directories=True)
        self._manager = ocp.CheckpointManager(_folder(workdir), options=options, item_handlers=_handlers())

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind, *rest):
        try:
            self._manager.close()
        except Exception as error:
            if kind is None:
                raise _write_failed(self._manager.directory, error) from error
        self._quiet.__exit__(kind, *rest)

    def latest_step(self) -> int | None:
        """The step of the latest complete checkpoint, None if there is none."""
        return self._manager.latest_step()

    def save(self, step: int, state: TrainState, progress: Progress) -> None:
        """Starts to write a checkpoint. Waits for the previous one first.

        Raises:
          UserError: the previous checkpoint could not be written, or this one cannot be started.
        """
        items = ocp.args.Composite(
            state=ocp.args.StandardSave(parallel.portable(state)),
            progress=ocp.args.JsonSave(dataclasses.asdict(progress)),
        )
        metrics = {"best_step": progress.best_step}
        try:
            self._manager.wait_until_finished()
            self._manager.save(step, args=items, metrics=metrics, force=True)
        except (OSError, ValueError, RuntimeError) as error:
            raise _write_failed(self._manager.directory, error) from error

    def wait(self) -> None:
        """Waits until the last checkpoint is written; UserError if it could not be."""
        try:
            self._manager.wait_until_finished()
        except (OSError, ValueError, RuntimeError) as error:
            raise _write_failed(self._manager.directory, error) from error

    def restore(self, step: int, state: TrainState) -> tuple[TrainState, Progress]:
        """State and progress of `step`.

        Args:
          step: the step of a complete checkpoint.
          state: a state with the structure, shapes, dtypes and placement to restore.

        Raises:
          UserError: the checkpoint is damaged, or holds the state of another model or optimizer.
        """
        folder = self._manager.directory / str(step)
        # Across hosts the target is NumPy, too. Otherwise Orbax uses the sharding in the file, which may name devices
        # of a single host.
        portable = parallel.portable(state)
        target = portable if parallel.host()[1] > 1 else jax.tree.map(ocp.utils.to_shape_dtype_struct, portable)
        wanted = _shapes(ocp.tree.serialize_tree(target, keep_empty_nodes=True))
        with _reading(folder):
            saved = _shapes(self._manager.item_metadata(step)["state"].tree)
        if saved != wanted:
            wrong = sorted(path for path in saved | wanted if saved.get(path) != wanted.get(path))
            raise UserError(
                f"{folder} does not fit this config's model and optimizer (first difference: {wrong[0]})",
                "use the config of the workdir, or another workdir",
            )
        args = ocp.args.Composite(state=ocp.args.StandardRestore(target), progress=ocp.args.JsonRestore())
        with _reading(folder):
            items = self._manager.restore(step, args=args)
        return items["state"], Progress(**items["progress"])


def restore_variables(workdir: str | Path, step: int | None = None) -> tuple[dict, int]:
    """The weights to evaluate, on this host's first device, regardless of the devices that saved them.

    Args:
      workdir: the workdir of a training run.
      step: the step of a checkpoint. None means the best one by validation score, or the latest if none was validated.

    Returns:
      {"params", "batch_stats"}, the EMA of the weights if the run keeps one, and the step.

    Raises:
      UserError: there is no checkpoint, none of this step, or it is damaged.
    """
    folder = _folder(workdir)
    if not folder.is_dir():
        raise UserError(f"{folder}: no checkpoints", "pass the --workdir of a training that has saved one")
    options = ocp.CheckpointManagerOptions(create=False)
    with _orbax_quiet(), ocp.CheckpointManager(folder, options=options, item_handlers=_handlers()) as manager:
        steps = sorted(manager.all_steps())
        if not steps:
            raise UserError(f"{folder}: no checkpoint yet", "wait until the training has saved one")
        if step is None:
            with _reading(folder / str(steps[-1])):
                args = ocp.args.Composite(progress=ocp.args.JsonRestore())
                best = manager.restore(steps[-1], args=args)["progress"]["best_step"]
            step = best if best in steps else steps[-1]
        if step not in steps:
            raise UserError(f"{folder}: no checkpoint of step {step}", f"choose from {steps}")
        sharding = parallel.single_device_sharding()
        with _reading(folder / str(step)):
            saved = manager.item_metadata(step)["state"].tree
            target = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), saved)
            state = manager.restore(step, args=ocp.args.Composite(state=ocp.args.StandardRestore(target)))["state"]
    return state["ema"] or {"params": state["params"], "batch_stats": state["batch_stats"]}, step


def _folder(workdir: str | Path) -> Path:
    return Path(workdir).absolute() / "checkpoints"


def _handlers() -> dict:
    return {"state": ocp.StandardCheckpointHandler(), "progress": ocp.JsonCheckpointHandler()}


@contextlib.contextmanager
def _orbax_quiet() -> Iterator[None]:
    """Suppresses what Orbax and its threads report themselves.

    A failure in a thread of Orbax is raised again by the next call into Orbax and becomes one UserError. Orbax also
    logs it through absl and asyncio. TensorStore reports a closed event loop for every file that is still open. These
    are hundreds of lines, which would hide the one line that the user needs.

    Everything is restored at the end of the block, unless the block raises: threads of TensorStore then report until
    the process ends.
    """
    accepted = {"absl": lambda record: "orbax" not in record.pathname, "asyncio": lambda record: False}
    for name, accept in accepted.items():
        logging.getLogger(name).addFilter(accept)
    report = sys.unraisablehook
    sys.unraisablehook = lambda event: str(event.exc_value) == "Event loop is closed" or report(event)
    yield
    sys.unraisablehook = report
    for name, accept in accepted.items():
        logging.getLogger(name).removeFilter(accept)


@contextlib.contextmanager
def _reading(folder: Path) -> Iterator[None]:
    """Turns the errors of a damaged checkpoint in `folder` into a UserError."""
    try:
        yield
    except (OSError, ValueError, KeyError) as error:
        remedy = "remove that folder to use the checkpoint before it"
        raise UserError(f"{folder} cannot be read ({_first_line(error)})", remedy) from error


def _shapes(tree) -> dict[str, tuple]:
    """{path: (shape, dtype)} of every leaf."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="."): (leaf.shape, leaf.dtype) for path, leaf in leaves}


def _write_failed(folder, error: Exception) -> UserError:
    # Orbax leaves coroutines behind that it had not started.
    warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
    return UserError(
        f"{folder}: a checkpoint could not be written ({_first_line(error)})",
        "free disk space or repair the folder, then run the same command again: it resumes from the last complete"
        " checkpoint",
    )


def _first_line(error: Exception) -> str:
    """The first line of a message; of a long one the beginning and the end, which say what happened and why."""
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return line if len(line) < 300 else f"{line[:140]} … {line[-140:]}"
