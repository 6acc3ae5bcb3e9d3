"""Checkpoints: restored bit for bit, incomplete ones ignored, every failure reported as one line."""

import gc
import json
import logging
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import ROOT, smoke_words

from lgg_jax.errors import UserError
from lgg_jax.training.checkpoints import Checkpoints, Progress, restore_variables
from lgg_jax.training.state import TrainState


def make_state(step: int, width: int = 3, ema: bool = False, norm: bool = True) -> TrainState:
    """Other values at every step, among them the smallest subnormal number and minus zero."""
    draw = np.random.default_rng(step).normal
    kernel = draw(size=(2, width)).astype("float32")
    kernel[0, :3] = (np.finfo("float32").smallest_subnormal, -0.0, np.finfo("float32").max)
    params = {"layer": {"kernel": jnp.asarray(kernel), "bias": jnp.asarray(draw(size=width), "bfloat16")}}
    batch_stats = {"norm": {"mean": jnp.asarray(draw(size=width), "float32")}} if norm else {}
    averaged = jax.tree.map(lambda x: x + 1, {"params": params, "batch_stats": batch_stats}) if ema else None
    opt_state = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-3)).init(params)
    return TrainState(jnp.asarray(step, "int32"), params, batch_stats, opt_state, averaged)


def save(workdir, scores: dict[int, float | None], **kind) -> Progress:
    """Saves one checkpoint per step, with its validation score if it has one."""
    progress = Progress()
    with Checkpoints(workdir) as checkpoints:
        for step, score in scores.items():
            progress = progress if score is None else progress.after(step, score)
            checkpoints.save(step, make_state(step, **kind), progress)
    return progress


def steps(workdir) -> list[int]:
    return sorted(int(path.name) for path in (workdir / "checkpoints").iterdir())


def assert_bitwise_equal(first, second):
    assert jax.tree.structure(first) == jax.tree.structure(second)
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        assert (a.dtype, a.shape, np.asarray(a).tobytes()) == (b.dtype, b.shape, np.asarray(b).tobytes())


@pytest.mark.parametrize("score, kind", [
    (None, {}), (0.25, {"ema": True}), (0.25, {"norm": False}), (0.25, {"ema": True, "norm": False}),
])  # fmt: skip
def test_state_and_progress_are_restored_bitwise(tmp_path, score, kind):
    progress = save(tmp_path, {7: score}, **kind)
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.latest_step() == 7
        restored, read = checkpoints.restore(7, make_state(0, **kind))
    assert_bitwise_equal(restored, make_state(7, **kind))
    assert read == progress
    assert_bitwise_equal(restore_variables(tmp_path)[0], make_state(7, **kind).variables())


def test_a_new_run_has_no_step(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.latest_step() is None


@pytest.mark.parametrize("scores, kept, best", [
    ({1: None, 2: None, 3: None}, [3], 3),
    ({1: 0.2, 2: 0.9, 3: 0.5, 4: 0.6}, [2, 4], 2),
    ({1: 0.2, 2: 0.9, 3: 0.5, 4: None, 5: None}, [2, 5], 2),
    ({1: 0.2, 2: 0.9, 3: 0.9, 4: None}, [3, 4], 3),  # of two equal scores the later one
    ({1: 0.0, 2: None, 3: 0.0, 4: None, 5: None}, [3, 5], 3),
    ({1: 0.2, 2: 0.3}, [2], 2),
])  # fmt: skip
def test_latest_and_best_are_kept(tmp_path, scores, kept, best):
    save(tmp_path, scores)
    assert steps(tmp_path) == kept
    assert restore_variables(tmp_path)[1] == best


def test_the_best_is_kept_when_a_run_is_resumed(tmp_path):
    save(tmp_path, {1: 0.2, 2: 0.9, 3: None})
    with Checkpoints(tmp_path) as checkpoints:
        _, progress = checkpoints.restore(3, make_state(0))
        for step, score in {4: 0.5, 5: None}.items():
            progress = progress.after(step, score) if score else progress
            checkpoints.save(step, make_state(step), progress)
    assert steps(tmp_path) == [2, 5]
    assert progress == Progress(0.9, 2, stale=1)


def test_progress_counts_validations_since_the_best():
    progress = Progress()
    for step, score in enumerate([0.1, 0.3, 0.2, 0.25]):
        progress = progress.after(step, score)
    assert progress == Progress(0.3, 1, 2)
    assert progress.after(4, 0.3) == Progress(0.3, 4, 0)


@pytest.mark.parametrize("step, expected", [(None, 1), (1, 1), (2, 2)])
def test_weights_alone(tmp_path, step, expected):
    save(tmp_path, {1: 0.9, 2: 0.1})
    variables, found = restore_variables(tmp_path, step)
    saved = make_state(expected)
    assert found == expected
    assert_bitwise_equal(variables, {"params": saved.params, "batch_stats": saved.batch_stats})


def test_the_ema_of_the_weights_is_what_is_evaluated(tmp_path):
    save(tmp_path, {1: 0.9}, ema=True)
    assert_bitwise_equal(restore_variables(tmp_path)[0], make_state(1, ema=True).ema)


def test_a_missing_checkpoint_is_an_error(tmp_path):
    with pytest.raises(UserError, match="no checkpoints"):
        restore_variables(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(UserError, match="no checkpoint yet"):
        restore_variables(tmp_path)
    save(tmp_path, {1: 0.9, 2: None})
    with pytest.raises(UserError, match=r"no checkpoint of step 3; choose from \[1, 2\]"):
        restore_variables(tmp_path, 3)


@pytest.mark.parametrize("other", [{"width": 4}, {"ema": True}])
def test_another_model_is_refused(tmp_path, other):
    save(tmp_path, {1: 0.9})
    with Checkpoints(tmp_path) as checkpoints, pytest.raises(UserError, match="does not fit this config's model"):
        checkpoints.restore(1, make_state(0, **other))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of reads that Orbax does not finish
@pytest.mark.parametrize("item", ["state", "progress"])
def test_a_damaged_checkpoint_is_an_error(tmp_path, item):
    save(tmp_path, {1: 0.9})
    for path in (tmp_path / "checkpoints" / "1" / item).rglob("*"):
        if path.is_file() and (path.parent.name == "d" or path.name == "metadata"):
            path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(UserError, match=r"checkpoints/1 cannot be read \(.*\); remove that folder"):
        restore_variables(tmp_path)
    with Checkpoints(tmp_path) as checkpoints, pytest.raises(UserError, match="checkpoints/1 cannot be read"):
        checkpoints.restore(1, make_state(0))
    gc.collect()


def test_an_incomplete_checkpoint_is_ignored(tmp_path):
    """A killed process leaves a temporary folder with some of the files."""
    save(tmp_path, {1: 0.9})
    folder = tmp_path / "checkpoints"
    for step in (2, 3):
        half = shutil.copytree(folder / "1", folder / f"{step}.orbax-checkpoint-tmp")
        shutil.rmtree(half / "state")
    assert restore_variables(tmp_path)[1] == 1
    with pytest.raises(UserError, match="no checkpoint of step 2"):
        restore_variables(tmp_path, 2)
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.latest_step() == 1
        checkpoints.save(2, make_state(2), Progress(0.9, 1))
    assert steps(tmp_path) == [1, 2], "temporary folders are removed when the training resumes"
    assert_bitwise_equal(restore_variables(tmp_path, 2)[0]["params"], make_state(2).params)


def suppression() -> tuple:
    """What `Checkpoints` changes in this process while it is open."""
    return *(logging.getLogger(name).filters[:] for name in ("absl", "asyncio")), sys.unraisablehook


def test_reports_of_orbax_are_suppressed_only_while_it_is_used(tmp_path):
    before = suppression()
    with Checkpoints(tmp_path / "one"):
        within = suppression()
        save(tmp_path / "other", {1: 0.9})
        restore_variables(tmp_path / "other")
        assert suppression() == within and all(a != b for a, b in zip(before, within, strict=True))
    assert suppression() == before


def test_a_full_disk_damages_no_earlier_checkpoint(trained, small_phantoms, tmp_path, lgg):
    """A limit on the file size simulates a full disk: only the weights are larger than it."""
    workdir = tmp_path / "run"
    shutil.copytree(trained, workdir)
    (workdir / "length.json").write_text('{"num_steps": 40}')  # twice the steps that are done
    before = restore_variables(workdir, 20)[0]
    words = smoke_words(small_phantoms, workdir)
    limited = ["bash", "-c", 'ulimit -f 48; exec "$@"', "bash", sys.executable, "-m", "lgg_jax", *words]
    ended = subprocess.run(limited, cwd=ROOT, text=True, capture_output=True, timeout=240, check=False)
    assert ended.returncode == 2, ended.stderr
    assert len(ended.stderr.splitlines()) == 1
    assert ended.stderr.startswith(f"lgg_jax: error: {workdir}/checkpoints: a checkpoint could not be written")
    assert_bitwise_equal(restore_variables(workdir)[0], before)
    assert lgg(*words).code == 0
    assert max(steps(workdir)) == 40
    assert json.loads((workdir / "postprocess.json").read_text())["step"] in steps(workdir)
