"""Multi-host runs: two processes with two devices each give the result of one process with one device."""

import json
import signal
import socket
import subprocess
import time
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest
from conftest import launch, result, smoke_words

from lgg_jax.training.checkpoints import restore_variables

STEPS = 6


def two_hosts(words: list[str]) -> list[subprocess.Popen]:
    """Start the same command on two hosts with two devices each."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    shared = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": "2",
              "XLA_FLAGS": "--xla_force_host_platform_device_count=2"}  # fmt: skip
    return [launch(*words, "--distributed", JAX_PROCESS_ID=str(index), **shared) for index in range(2)]


def metrics(workdir: Path) -> list[dict]:
    return [json.loads(line) for line in (workdir / "logs" / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def fields() -> dict:
    # Dropout is off, because its random keys must differ between devices and so depend on the number of devices.
    return {"model__dropout": 0.0, "train__num_steps": STEPS, "train__eval_every": 3, "train__log_every": 1,
            "train__checkpoint_every": 2}  # fmt: skip


@pytest.fixture(scope="module")
def shared_run(small_phantoms, tmp_path_factory, fields) -> Path:
    workdir = tmp_path_factory.mktemp("hosts") / "run"
    ends = [result(host) for host in two_hosts(smoke_words(small_phantoms, workdir, **fields))]
    assert [end.code for end in ends] == [0, 0], ends
    # XLA's transport (Gloo) prints from several threads, which may split its lines.
    printed = [line for line in ends[1].out.splitlines() if "[Gloo]" not in line and "peer ranks" not in line]
    assert not printed, f"only the first host may print: {printed}"
    return workdir


def test_two_hosts_give_the_weights_of_one(shared_run, small_phantoms, tmp_path, fields, lgg):
    assert lgg(*smoke_words(small_phantoms, tmp_path / "run", **fields)).code == 0
    shared, alone = (restore_variables(run, STEPS)[0] for run in (shared_run, tmp_path / "run"))
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), shared, alone)
    for shared, alone in zip(metrics(shared_run), metrics(tmp_path / "run"), strict=True):
        assert shared == pytest.approx(alone, rel=1e-3)


def test_only_one_host_writes_files(shared_run):
    assert {path.name for path in shared_run.iterdir()} == {
        "config.json", "splits.json", "length.json", "versions.json", "postprocess.json", "checkpoints", "logs"
    }  # fmt: skip
    assert sorted(path.name for path in (shared_run / "checkpoints").iterdir())[-1] == str(STEPS)
    assert len(list((shared_run / "logs").glob("events.out.tfevents*"))) == 1


def test_two_hosts_resume_the_run_of_one_host_and_their_own(small_phantoms, tmp_path, fields, lgg):
    workdir = tmp_path / "run"
    words = smoke_words(small_phantoms, workdir, **fields)
    length = workdir / "length.json"
    assert lgg(*words).code == 0
    for step in (STEPS + 2, STEPS + 4):  # The second time, they resume from their own checkpoint.
        length.write_text(json.dumps({"num_steps": step}))
        ends = [result(host) for host in two_hosts(words)]
        assert [end.code for end in ends] == [0, 0], ends
        assert f"resuming from step {step - 2} of {step}" in ends[0].out
    assert restore_variables(workdir, STEPS + 4)[1] == STEPS + 4


def test_one_device_evaluates_a_run_of_four(shared_run, lgg):
    assert len(jax.devices()) == 1
    ended = lgg("evaluate", f"--workdir={shared_run}", "--split=validation")
    assert ended.code == 0, ended.err
    scores = json.loads((shared_run / "eval" / "validation" / "metrics.json").read_text())
    chosen = json.loads((shared_run / "postprocess.json").read_text())
    assert scores["volume_dice"]["mean"] == pytest.approx(chosen["validation_volume_dice"], abs=1e-4)


def test_hosts_stop_at_the_same_step_and_one_host_resumes(small_phantoms, tmp_path, fields, lgg):
    workdir = tmp_path / "run"
    words = smoke_words(small_phantoms, workdir, **{**fields, "train__num_steps": 400, "train__eval_every": 200})
    hosts = two_hosts(words)
    limit = time.monotonic() + 120
    while not (workdir / "checkpoints" / "6").exists() and hosts[0].poll() is None and time.monotonic() < limit:
        time.sleep(0.01)
    for host in hosts:
        host.send_signal(signal.SIGTERM)
    ends = [result(host) for host in hosts]
    assert [end.code for end in ends] == [0, 0], ends
    step = max(int(path.name) for path in (workdir / "checkpoints").iterdir())
    assert f"stopped by SIGTERM at step {step}, which is saved" in ends[0].out
    assert 6 <= step < 400
    (workdir / "length.json").write_text(json.dumps({"num_steps": step + 2}))
    ended = lgg(*words)
    assert ended.code == 0, ended.err
    assert f"resuming from step {step} of {step + 2}" in ended.out
