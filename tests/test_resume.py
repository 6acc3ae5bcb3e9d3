"""Resuming: a run that is killed and restarted with the same command is bitwise identical to an uninterrupted run.

This includes dropout, EMA of the weights and the best score.
"""

import hashlib
import json
import signal
import time
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from conftest import Result, launch, result, smoke_words

STEPS = 60
FIELDS = {"train__num_steps": STEPS, "train__checkpoint_every": 5, "train__log_every": 5, "train__eval_every": 15}


def words(data_dir: Path, workdir: Path) -> list[str]:
    return smoke_words(data_dir, workdir, **FIELDS)


def names(workdir: Path) -> list[str]:
    folder = workdir / "checkpoints"
    return [path.name for path in folder.iterdir()] if folder.exists() else []


def saved_steps(workdir: Path) -> list[int]:
    return sorted(int(name) for name in names(workdir) if name.isdigit())


def interrupt(command: list[str], number: int, when) -> Result:
    """Start the command, send the signal `number` when `when()` is true, and wait for the process."""
    process = launch(*command)
    limit = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < limit and not when():
        time.sleep(0.001)
    process.send_signal(number)
    return result(process)


@pytest.fixture(scope="module")
def uninterrupted(small_phantoms, tmp_path_factory) -> Path:
    """An uninterrupted run, compiled without the cache. Equality is then not due to a shared compiled program."""
    workdir = tmp_path_factory.mktemp("uninterrupted") / "run"
    ended = result(launch(*words(small_phantoms, workdir), JAX_ENABLE_COMPILATION_CACHE="0"))
    assert ended.code == 0, ended.err
    return workdir


@pytest.fixture(scope="module")
def interrupted(small_phantoms, tmp_path_factory) -> dict:
    """The same run: killed after a checkpoint, killed during a checkpoint, stopped by SIGTERM, then completed."""
    workdir = tmp_path_factory.mktemp("interrupted") / "run"
    command = words(small_phantoms, workdir)

    def appeared(step: int) -> bool:
        return max(saved_steps(workdir), default=0) >= step

    def being_written() -> bool:
        return any(name.startswith(("25.", "30.", "35.")) for name in names(workdir))

    ends = {"after": interrupt(command, signal.SIGKILL, lambda: appeared(10))}
    after = saved_steps(workdir)
    ends["during"] = interrupt(command, signal.SIGKILL, being_written)
    during = names(workdir)
    ends["stopped"] = interrupt(command, signal.SIGTERM, lambda: appeared(40))
    stopped = saved_steps(workdir)
    ends["last"] = result(launch(*command))
    return {"workdir": workdir, "ends": ends, "after": after, "during": during, "stopped": stopped, "command": command}


def test_the_interruptions(interrupted):
    ends = interrupted["ends"]
    assert [ends[name].code for name in ("after", "during", "stopped", "last")] == [-9, -9, 0, 0]
    assert 10 <= max(interrupted["after"]) < 25
    assert any(not name.isdigit() for name in interrupted["during"]), "no partial checkpoint was left"
    for name in ("during", "stopped", "last"):
        assert "resuming from step" in ends[name].out
    assert all("error" not in end.err.lower() for end in ends.values())


def test_sigterm_saves_and_prints_how_to_resume(interrupted):
    last = interrupted["ends"]["stopped"].out.splitlines()[-1]
    step = max(interrupted["stopped"])
    assert last == f"stopped by SIGTERM at step {step}, which is saved; run the same command to resume"
    assert 40 <= step < STEPS
    assert f"resuming from step {step} of {STEPS}" in interrupted["ends"]["last"].out


@pytest.mark.parametrize("item", ["params", "batch_stats", "opt_state", "ema", "step"])
def test_the_last_state_is_bitwise_identical(uninterrupted, interrupted, item):
    first, second = (read(workdir)[item] for workdir in (uninterrupted, interrupted["workdir"]))
    leaves = list(zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True))
    assert leaves
    for a, b in leaves:
        assert a.dtype == b.dtype
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def read(workdir: Path) -> dict:
    with ocp.StandardCheckpointer() as checkpointer:
        return checkpointer.restore((workdir / "checkpoints" / str(STEPS) / "state").absolute())


def test_the_best_score_and_the_postprocessing_are_identical(uninterrupted, interrupted):
    def content(workdir: Path) -> list:
        postprocess = json.loads((workdir / "postprocess.json").read_text())
        progress = json.loads((workdir / "checkpoints" / str(STEPS) / "progress" / "metadata").read_text())
        return [postprocess, progress, saved_steps(workdir), json.loads((workdir / "splits.json").read_text())]

    assert content(uninterrupted) == content(interrupted["workdir"])


def test_metrics_jsonl_has_every_step_once(uninterrupted, interrupted):
    stop = max(interrupted["stopped"])
    for workdir, extra in ((uninterrupted, set()), (interrupted["workdir"], {stop})):
        steps = [line["step"] for line in lines(workdir, "train/loss")]
        assert steps == sorted({*range(5, STEPS + 1, 5), *extra})
        assert [line["step"] for line in lines(workdir, "validation/volume_dice")] == [15, 30, 45, 60]
    validations = [lines(workdir, "validation/volume_dice") for workdir in (uninterrupted, interrupted["workdir"])]
    assert validations[0] == validations[1]
    # The line after the stop is a mean over fewer steps. All other lines are equal.
    trainings = [
        [line for line in lines(workdir, "train/loss") if not stop <= line["step"] <= stop + 5]
        for workdir in (uninterrupted, interrupted["workdir"])
    ]
    assert trainings[0] == trainings[1]


def lines(workdir: Path, name: str) -> list[dict]:
    parsed = map(json.loads, (workdir / "logs" / "metrics.jsonl").read_text().splitlines())
    return [line for line in parsed if name in line]


def test_a_complete_run_is_not_changed(interrupted, lgg):
    def digests() -> dict[str, str]:
        files = [path for path in interrupted["workdir"].rglob("*") if path.is_file()]
        return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    before = digests()
    assert lgg(*interrupted["command"]).code == 0
    after = digests()
    assert {path: digest for path, digest in after.items() if path in before} == before
    assert all("events.out.tfevents" in path for path in after.keys() - before.keys())
