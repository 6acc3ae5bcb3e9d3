"""Saving and restoring: the only file that knows Orbax.

    with Checkpoints(workdir) as checkpoints:
        checkpoints.save(step, state, progress)                # returns at once, written in the background
    variables, step = restore_variables(workdir)               # on any machine; the best step by default

`checkpoints/<step>/` appears under its name only when it is whole; the latest and the best by score are kept, and
the one before goes only after the next is there.
"""

import contextlib
import dataclasses
import logging
import sys
import warnings
from pathlib import Path

import jax
import orbax.checkpoint as ocp

from lgg_jax import parallel
from lgg_jax.errors import UserError
from lgg_jax.training.state import TrainState

# What fails in Orbax's threads is raised again by the next call into Orbax. Its own account of it, hundreds of lines of
# log and of callbacks that found their event loop closed, would bury the one line that a person needs.
logging.getLogger("absl").addFilter(lambda record: "orbax" not in record.pathname)
logging.getLogger("asyncio").disabled = True
_report_unraisable = sys.unraisablehook
sys.unraisablehook = lambda event: str(event.exc_value) == "Event loop is closed" or _report_unraisable(event)


@dataclasses.dataclass(frozen=True)
class Progress:
    """What the loop, beside the state, must know to go on as if it had never stopped."""

    best_score: float = float("-inf")
    best_step: int = -1
    stale: int = 0  # validations since the best

    def after(self, step: int, score: float) -> "Progress":
        """With one more validation; of two equal scores the later counts as the best."""
        if score >= self.best_score:
            return Progress(score, step, 0)
        return dataclasses.replace(self, stale=self.stale + 1)


class _LatestAndBest:
    """Which checkpoints stay. The best is that of `Progress`: Orbax's own policy forgets it when a run is resumed."""

    best_step = -1

    def should_preserve(self, checkpoints, *, context) -> list[bool]:
        del context
        return [checkpoint.step in (self.best_step, checkpoints[-1].step) for checkpoint in checkpoints]


class Checkpoints:
    """The checkpoints of one run, as a context manager that waits for the last to be written."""

    def __init__(self, workdir: str | Path):
        self._keep = _LatestAndBest()
        options = ocp.CheckpointManagerOptions(preservation_policy=self._keep, cleanup_tmp_directories=True)
        self._manager = ocp.CheckpointManager(_folder(workdir), options=options, item_handlers=_handlers())

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind, *_):
        try:
            self._manager.close()
        except Exception as error:
            if kind is None:
                raise _write_failed(self._manager.directory, error) from error

    def latest_step(self) -> int | None:
        """The newest whole checkpoint, None where there is none."""
        return self._manager.latest_step()

    def save(self, step: int, state: TrainState, progress: Progress) -> None:
        """Starts to write; first waits for the save before, and raises UserError where that one failed."""
        items = ocp.args.Composite(
            state=ocp.args.StandardSave(parallel.portable(state)),
            progress=ocp.args.JsonSave(dataclasses.asdict(progress)),
        )
        try:
            self._manager.wait_until_finished()
            self._keep.best_step = progress.best_step
            self._manager.save(step, args=items, force=True)
        except (OSError, ValueError, RuntimeError) as error:
            raise _write_failed(self._manager.directory, error) from error

    def wait(self) -> None:
        """Until everything is on disk."""
        try:
            self._manager.wait_until_finished()
        except (OSError, ValueError, RuntimeError) as error:
            raise _write_failed(self._manager.directory, error) from error

    def restore(self, step: int, state: TrainState) -> tuple[TrainState, Progress]:
        """State and progress of `step`; `state` gives the structure, shapes and placement."""
        folder = self._manager.directory / str(step)
        # Across hosts as NumPy as well: else Orbax takes the placement in the file, which may be one host's alone.
        portable = parallel.portable(state)
        target = portable if parallel.host()[1] > 1 else jax.tree.map(ocp.utils.to_shape_dtype_struct, portable)
        wanted = _shapes(ocp.tree.serialize_tree(target, keep_empty_nodes=True))
        with _reading(folder):
            saved = _shapes(self._manager.item_metadata(step)["state"].tree)
        if saved != wanted:
            wrong = sorted(path for path in saved | wanted if saved.get(path) != wanted.get(path))
            raise UserError(
                f"{folder} does not fit this config's model and optimizer (first in {wrong[0]})",
                "use the config of the workdir, or another workdir",
            )
        args = ocp.args.Composite(state=ocp.args.StandardRestore(target), progress=ocp.args.JsonRestore())
        with _reading(folder):
            items = self._manager.restore(step, args=args)
        return items["state"], Progress(**items["progress"])


def restore_variables(workdir: str | Path, step: int | None = None) -> tuple[dict, int]:
    """The weights to evaluate, on this machine's first device, whatever they were saved on.

    Args:
      workdir: of a training run.
      step: which checkpoint; None is the best by validation, or the latest where none was validated.

    Returns:
      {"params", "batch_stats"} and the step.
    """
    folder = _folder(workdir)
    if not folder.is_dir():
        raise UserError(f"{folder}: no checkpoints", "pass the --workdir of a training that has saved one")
    options = ocp.CheckpointManagerOptions(create=False)
    with ocp.CheckpointManager(folder, options=options, item_handlers=_handlers()) as manager:
        steps = sorted(manager.all_steps())
        if not steps:
            raise UserError(f"{folder}: no checkpoint yet", "let the training save one first")
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
def _reading(folder: Path):
    try:
        yield
    except (OSError, ValueError, KeyError) as error:
        remedy = "remove that folder to use the checkpoint before it"
        raise UserError(f"{folder} cannot be read ({_first_line(error)})", remedy) from error


def _shapes(tree) -> dict[str, tuple]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="."): (leaf.shape, leaf.dtype) for path, leaf in leaves}


def _write_failed(folder, error: Exception) -> UserError:
    warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)  # what Orbax did not get to
    return UserError(
        f"{folder}: a checkpoint could not be written ({_first_line(error)})",
        "free space or mend the folder and give the same command again: it goes on from the last whole checkpoint",
    )


def _first_line(error: Exception) -> str:
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return line if len(line) < 300 else f"{line[:140]} … {line[-140:]}"  # what and why are at the two ends
