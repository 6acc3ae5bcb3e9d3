"""Eight devices do what one does: the same gradient, the same statistics, the same rows in the same order.

Run as a program this file writes what its devices compute: `python tests/test_parallel.py OUT.npz`.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from flax import traverse_util

from configs import default
from lgg_jax import parallel, train
from lgg_jax.errors import UserError
from lgg_jax.models import unet
from lgg_jax.models.unet import UNet
from lgg_jax.training import state

BATCH, SIZE = 16, 16


def updated(norm="batch", accumulation=1, uneven=True, **losses: float) -> dict[str, np.ndarray]:
    """Gradient, statistics and metrics of one step over all devices; `uneven`: some rows only fill up the batch.

    With softplus in place of ReLU: rounding pushes a value at the kink of ReLU to either side, and the gradients of
    one and eight devices then differ by more than rounding.
    """
    config = default.get_config()
    config.loss.update(losses)
    config.optimizer.accumulation = accumulation
    rng = np.random.default_rng(0)
    image = rng.normal(0.5, size=(BATCH, SIZE, SIZE, 3)).astype("float32")
    mask = (image[..., 1] + rng.normal(size=image.shape[:3]) > 1).astype("float32")
    weight = np.ones(BATCH, "float32")
    weight[[0, 1, 9]] = 0 if uneven else 1
    model = UNet(features=8, levels=2, norm=norm, dtype=jnp.float64, axis_name=parallel.AXIS)
    optimizer = optax.trace(0.0)  # which keeps the gradient
    variables = state.initial_variables(config, model, (image[:1],))
    before = state.create_state(config.optimizer, optimizer, variables)
    step = parallel.map_step(train.make_train_step(config, model, optimizer))
    with mock.patch.object(unet.nn, "relu", nn.softplus):
        after, metrics = step(before, parallel.shard({"image": image, "mask": mask, "weight": weight}))
    metrics = {key: total / count for key, (total, count) in metrics.items()}  # parts count a batch once each
    everything = {"gradient": after.opt_state.trace, "batch_stats": after.batch_stats, "metrics": metrics}
    return {name: np.asarray(x) for name, x in traverse_util.flatten_dict(everything, sep="/").items()}


def results() -> dict[str, np.ndarray]:
    """What is compared between one device and eight."""
    devices = jax.local_device_count()
    keys = jax.pmap(lambda _: jax.random.key_data(parallel.device_key(jax.random.key(0))), axis_name=parallel.AXIS)
    doubled = parallel.map_local(lambda factor, rows: factor * rows)
    cases = {
        "batchnorm": updated(focal_tversky=1.0, positive_weight=2.0),
        "accumulated": updated("group", accumulation=2, uneven=False, dice=0.0),
    }
    if devices == 1:
        cases["whole"] = updated("group", uneven=False, dice=0.0)
    return {
        "keys": np.asarray(keys(np.arange(devices))),
        "rows": np.asarray(doubled(2, parallel.shard(np.arange(BATCH)))).reshape(-1),
        **traverse_util.flatten_dict(cases, sep="/"),
    }


@pytest.fixture(scope="module")
def both(tmp_path_factory) -> list[dict]:
    """The results of one device and of eight, from two processes."""
    folder = tmp_path_factory.mktemp("parallel")
    shared = {"JAX_ENABLE_X64": "1", "PYTHONPATH": str(Path(__file__).parents[1])}
    paths, processes = [folder / "one.npz", folder / "eight.npz"], []
    for path, devices in zip(paths, (1, 8), strict=True):
        flags = f"--xla_force_host_platform_device_count={devices} --xla_backend_optimization_level=0"
        environment = os.environ | shared | {"XLA_FLAGS": flags}
        processes.append(subprocess.Popen([sys.executable, __file__, path], env=environment))
    assert [process.wait(240) for process in processes] == [0, 0]
    return [dict(np.load(path)) for path in paths]


@pytest.fixture
def one(both) -> dict[str, np.ndarray]:
    return both[0]


@pytest.fixture
def eight(both) -> dict[str, np.ndarray]:
    return both[1]


@pytest.mark.parametrize("case", ["batchnorm", "accumulated"])
def test_a_step_of_eight_devices_is_the_step_of_one(one, eight, case):
    names = [name for name in one if name.startswith(f"{case}/")]
    assert len(names) > 20
    for name in names:
        np.testing.assert_allclose(eight[name], one[name], rtol=1e-6, atol=1e-6 * np.abs(one[name]).max(), err_msg=name)


def test_statistics_are_compared_too(one):
    names = [name for name in one if name.startswith("batchnorm/batch_stats/")]
    assert len(names) == 2 * 6
    assert all(np.abs(one[name]).max() > 0.01 for name in names)


def test_rows_keep_their_order(one, eight):
    for rows in (one["rows"], eight["rows"]):
        np.testing.assert_array_equal(rows, 2 * np.arange(BATCH))


def test_every_device_draws_its_own_dropout(eight):
    assert len(np.unique(eight["keys"], axis=0)) == 8


def test_accumulation_is_the_whole_batch(one):
    """With what does not mix rows: GroupNorm, and a loss that is a mean."""
    names = [name for name in one if name.startswith("whole/")]
    assert len(names) > 20
    for name in names:
        whole, parts = one[name], one[name.replace("whole", "accumulated")]
        np.testing.assert_allclose(parts, whole, rtol=1e-6, atol=1e-6 * np.abs(whole).max(), err_msg=name)


def test_a_step_is_compiled_once(monkeypatch):
    """Not for a state that is new, and again for one that a step gave back."""
    traced = []

    def count(state, batch):
        traced.append(state)
        return state + parallel.all_sum(batch.sum()), {}

    step, state = parallel.map_step(count), parallel.replicate(jnp.zeros(()))
    for _ in range(3):
        state, _ = step(state, parallel.shard(np.ones(8, np.float32)))
    assert state == 24 and len(traced) == 1
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    assert parallel.replicate(traced) is traced


@pytest.mark.parametrize("devices, batch_size, accumulation", [(8, 12, 1), (1, 16, 3), (4, 16, 8)])
def test_a_batch_that_cannot_be_shared_is_refused(monkeypatch, devices, batch_size, accumulation):
    monkeypatch.setattr(jax, "device_count", lambda: devices)
    with pytest.raises(UserError, match=f"batch_size={batch_size}.*choose a multiple of {devices * accumulation}"):
        parallel.check_batch(batch_size, accumulation)
    parallel.check_batch(devices * accumulation, accumulation)


def test_one_host_gathers_its_own_rows():
    rows = np.arange(6, dtype=np.float32).reshape(3, 2)
    assert parallel.gather(rows) is rows
    assert parallel.from_first_host(7) == 7
    assert parallel.is_first_host()
    parallel.barrier("alone, nobody to wait for")


def test_hosts_share_items_out(monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 3)
    shares = []
    for index in range(3):
        monkeypatch.setattr(jax, "process_index", lambda index=index: index)
        shares.append(parallel.host_items(list("abcdefg")))
    assert shares == [["a", "d", "g"], ["b", "e"], ["c", "f"]]


def test_sigterm_is_noted_and_the_handler_restored():
    before = signal.getsignal(signal.SIGTERM)
    with parallel.Preemption() as preemption:
        assert not preemption.reached(1)
        os.kill(os.getpid(), signal.SIGTERM)
        assert preemption.reached(2)
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("environment", [
    {}, {"JAX_NUM_PROCESSES": "2"}, {"JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "x"},
])  # fmt: skip
def test_half_an_address_is_refused(monkeypatch, environment):
    for name in ("JAX_NUM_PROCESSES", "JAX_PROCESS_ID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"JAX_COORDINATOR_ADDRESS": "localhost:1", **environment}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match="set all three in every process"):
        parallel.initialize()


def test_distributed_without_a_cluster_is_one_line(monkeypatch):
    monkeypatch.delenv("JAX_COORDINATOR_ADDRESS", raising=False)

    def nothing_found(**_timeouts):
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr(jax.distributed, "initialize", nothing_found)
    with pytest.raises(UserError, match=r"no Slurm, Kubernetes or TPU slice was found"):
        parallel.initialize()


if __name__ == "__main__":
    np.savez(sys.argv[1], **results())
