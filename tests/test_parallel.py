"""Data parallelism: eight devices give the gradients, BatchNorm statistics and row order of one device.

As a script, this file writes the results of its devices: `python tests/test_parallel.py OUT.npz`.
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
    """Return gradient, BatchNorm statistics and metrics of one step over all devices.

    Softplus replaces ReLU. At zero, rounding decides the side of ReLU, and the gradients of one and eight devices would
    differ by more than rounding.

    Args:
      norm: "batch" or "group".
      accumulation: the number of accumulation parts.
      uneven: whether some rows have weight 0, as in a padded batch.
      **losses: changed fields of `config.loss`.
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
    optimizer = optax.trace(0.0)  # Its state is the gradient.
    variables = state.initial_variables(config, model, (image[:1],))
    before = state.create_state(config.optimizer, optimizer, variables)
    step = parallel.map_step(train.make_train_step(config, model, optimizer))
    with mock.patch.object(unet.nn, "relu", nn.softplus):
        after, metrics = step(before, parallel.shard({"image": image, "mask": mask, "weight": weight}))
    # Divided, because each accumulation part adds 1 to the count of a metric that is computed per batch.
    metrics = {key: total / count for key, (total, count) in metrics.items()}
    values = {"gradient": after.opt_state.trace, "batch_stats": after.batch_stats, "metrics": metrics}
    return {name: np.asarray(x) for name, x in traverse_util.flatten_dict(values, sep="/").items()}


def results() -> dict[str, np.ndarray]:
    """Return the values to compare between one device and eight."""
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
def test_a_step_on_eight_devices_equals_a_step_on_one(one, eight, case):
    names = [name for name in one if name.startswith(f"{case}/")]
    assert len(names) > 20
    for name in names:
        np.testing.assert_allclose(eight[name], one[name], rtol=1e-6, atol=1e-6 * np.abs(one[name]).max(), err_msg=name)


def test_batchnorm_statistics_are_compared_too(one):
    names = [name for name in one if name.startswith("batchnorm/batch_stats/")]
    assert len(names) == 2 * 6
    assert all(np.abs(one[name]).max() > 0.01 for name in names)


def test_rows_keep_their_order(one, eight):
    for rows in (one["rows"], eight["rows"]):
        np.testing.assert_array_equal(rows, 2 * np.arange(BATCH))


def test_every_device_has_its_own_dropout_key(eight):
    assert len(np.unique(eight["keys"], axis=0)) == 8


def test_accumulation_equals_the_whole_batch(one):
    """Compared with GroupNorm and a loss that is a mean over rows, because these do not mix the rows of a batch."""
    names = [name for name in one if name.startswith("whole/")]
    assert len(names) > 20
    for name in names:
        whole, parts = one[name], one[name.replace("whole", "accumulated")]
        np.testing.assert_allclose(parts, whole, rtol=1e-6, atol=1e-6 * np.abs(whole).max(), err_msg=name)


def test_a_step_is_compiled_once(monkeypatch):
    """The initial state and a state that a step returned have the same sharding."""
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
def test_a_batch_that_cannot_be_split_evenly_is_refused(monkeypatch, devices, batch_size, accumulation):
    monkeypatch.setattr(jax, "device_count", lambda: devices)
    with pytest.raises(UserError, match=f"batch_size={batch_size}.*choose a multiple of {devices * accumulation}"):
        parallel.check_batch(batch_size, accumulation)
    parallel.check_batch(devices * accumulation, accumulation)


def test_collective_functions_on_one_host():
    rows = np.arange(6, dtype=np.float32).reshape(3, 2)
    assert parallel.gather(rows) is rows
    assert parallel.from_first_host(7) == 7
    assert parallel.is_first_host()
    parallel.barrier("one host returns immediately")


def test_items_are_divided_between_hosts(monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 3)
    items = []
    for index in range(3):
        monkeypatch.setattr(jax, "process_index", lambda index=index: index)
        items.append(parallel.host_items(list("abcdefg")))
    assert items == [["a", "d", "g"], ["b", "e"], ["c", "f"]]


def test_sigterm_is_caught_and_the_handler_restored():
    before = signal.getsignal(signal.SIGTERM)
    with parallel.Preemption() as preemption:
        assert not preemption.reached(1)
        os.kill(os.getpid(), signal.SIGTERM)
        assert preemption.reached(2)
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("environment", [
    {}, {"JAX_NUM_PROCESSES": "2"}, {"JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "x"},
])  # fmt: skip
def test_incomplete_environment_variables_are_refused(monkeypatch, environment):
    for name in ("JAX_NUM_PROCESSES", "JAX_PROCESS_ID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"JAX_COORDINATOR_ADDRESS": "localhost:1", **environment}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match="set all three in every process"):
        parallel.initialize()


def test_distributed_without_a_cluster_is_refused(monkeypatch):
    monkeypatch.delenv("JAX_COORDINATOR_ADDRESS", raising=False)

    def no_cluster(**_timeouts):
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr(jax.distributed, "initialize", no_cluster)
    with pytest.raises(UserError, match=r"no Slurm, Kubernetes or TPU slice was found"):
        parallel.initialize()


if __name__ == "__main__":
    np.savez(sys.argv[1], **results())
