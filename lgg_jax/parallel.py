"""Devices and hosts: the only file that knows them.

    step = parallel.map_step(train_step)                  # train_step is written for one device's share
    state, metrics = step(state, parallel.shard(batch))   # state: an ordinary pytree, replicated

State goes in and out unsplit (`in_axes=None`): JAX replicates it, and there is no device axis to add or strip.
"""

import collections
import os
import signal
from collections.abc import Callable
from functools import partial

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from lgg_jax.errors import UserError

AXIS = "batch"
# Seconds that a process waits for the others when it ends. Where an error ends it alone, they wait for it in turn, and
# JAX's five minutes would only pass.
_PATIENCE = 60


def initialize() -> None:
    """Joins the other processes of a multi-host run.

    Where JAX_COORDINATOR_ADDRESS is set, with JAX_NUM_PROCESSES and JAX_PROCESS_ID; else JAX finds out from Slurm,
    Kubernetes or the TPU runtime. Call before any computation.
    """
    address = os.environ.get("JAX_COORDINATOR_ADDRESS")
    if address is None:
        try:
            jax.distributed.initialize(shutdown_timeout_seconds=_PATIENCE)
        except ValueError as error:  # what JAX raises where it finds no cluster
            raise UserError(
                f"--distributed, but no Slurm, Kubernetes or TPU slice was found ({error})",
                "leave it out on one machine, or set JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID",
            ) from error
        return
    try:
        processes, index = int(os.environ["JAX_NUM_PROCESSES"]), int(os.environ["JAX_PROCESS_ID"])
    except (KeyError, ValueError) as error:
        raise UserError(
            f"JAX_COORDINATOR_ADDRESS is set, but JAX_NUM_PROCESSES or JAX_PROCESS_ID is not a number ({error})",
            "set all three in every process",
        ) from error
    # Else JAX looks for a cluster all the same and, under Slurm, leaves the process one of its GPUs.
    jax.distributed.initialize(
        address, processes, index, cluster_detection_method="deactivate", shutdown_timeout_seconds=_PATIENCE
    )


def map_step(step: Callable) -> Callable:
    """(state, batch) → (state, metrics) over all devices; the old state's memory is reused for the new one.

    Not across hosts: there pmap spreads a first state over the local devices and deletes it, although the copy on the
    first device shares its memory.
    """
    donated = (0,) if jax.process_count() == 1 else ()
    return jax.pmap(step, axis_name=AXIS, in_axes=(None, 0), out_axes=(None, None), donate_argnums=donated)


def replicated(state):
    """The state placed as `map_step` gives it back: the step would else be compiled once for the first and once again.

    As it is across hosts, where pmap spreads it.
    """
    if jax.process_count() > 1:
        return state
    return jax.device_put(state, NamedSharding(Mesh(np.array(jax.devices()), (AXIS,)), PartitionSpec()))


def map_local(function: Callable) -> Callable:
    """(variables, rows) → rows over this host's devices only: nothing waits for other hosts."""
    return jax.pmap(function, in_axes=(None, 0), devices=jax.local_devices())


def shard(batch):
    """Splits every (rows, …) array of this host over its devices: (devices, rows / devices, …)."""
    devices = local_devices()
    return jax.tree.map(lambda x: x.reshape(devices, len(x) // devices, *x.shape[1:]), batch)


def check_batch(batch_size: int, accumulation: int) -> None:
    """UserError where the global batch cannot be shared out evenly."""
    parts = jax.device_count() * accumulation
    if batch_size % parts:
        raise UserError(
            f"config.train.batch_size={batch_size} cannot be split over {jax.device_count()} devices"
            f" × {accumulation} accumulation parts",
            f"choose a multiple of {parts}",
        )


all_sum = partial(jax.lax.psum, axis_name=AXIS)
all_mean = partial(jax.lax.pmean, axis_name=AXIS)


def device_key(key: jax.Array) -> jax.Array:
    """Inside a mapped step: a key that differs between devices."""
    return jax.random.fold_in(key, jax.lax.axis_index(AXIS))


def to_local(tree):
    """A replicated tree as it lies on this host's first device: usable without the other hosts."""
    return jax.tree.map(lambda x: x.addressable_data(0) if isinstance(x, jax.Array) else x, tree)


def single_device_sharding() -> jax.sharding.Sharding:
    """The placement of an array on this host's first device."""
    return jax.sharding.SingleDeviceSharding(jax.local_devices()[0])


def portable(tree):
    """The tree as a checkpoint takes it: across hosts as NumPy, for Orbax refuses what only one host addresses."""
    return tree if jax.process_count() == 1 else jax.tree.map(np.array, tree)


def gather(rows: np.ndarray) -> np.ndarray:
    """(n, …) float rows of every host, one after another in the order of the hosts; n may differ, all must call."""
    if jax.process_count() == 1:
        return rows
    counts = multihost_utils.process_allgather(np.array([len(rows)])).ravel()
    padded = np.zeros((counts.max(), *rows.shape[1:]), rows.dtype)
    padded[: len(rows)] = rows
    everything = multihost_utils.process_allgather(padded)
    return np.concatenate([block[:count] for block, count in zip(everything, counts, strict=True)])


def local_devices() -> int:
    """The number of this host's devices."""
    return jax.local_device_count()


def described() -> str:
    """All devices of the run in words: "8 × tpu (TPU v4)"."""
    kinds = collections.Counter(f"{device.platform} ({device.device_kind})" for device in jax.devices())
    return ", ".join(f"{count} × {kind}" for kind, count in kinds.items())


def on_cpu() -> bool:
    """Whether the computation runs on CPUs."""
    return jax.default_backend() == "cpu"


def my_share(items: list) -> list:
    """Every k-th item, for the k hosts."""
    return items[jax.process_index() :: jax.process_count()]


def host() -> tuple[int, int]:
    """This host's number and how many there are."""
    return jax.process_index(), jax.process_count()


def from_first_host(value: int) -> int:
    """The first host's value, on every host."""
    return int(multihost_utils.broadcast_one_to_all(np.array(value))) if jax.process_count() > 1 else value


def is_first_host() -> bool:
    """Whether this host writes logs and pictures."""
    return jax.process_index() == 0


def barrier(name: str) -> None:
    """Waits until every host has come here."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


class Preemption:
    """Knows whether the run was asked to stop (SIGTERM, as Slurm, Kubernetes and TPU maintenance send it).

    Across hosts all see it at the same step, through JAX's preemption service, which has the signal then.
    """

    def __init__(self):
        self._asked = False

    def __enter__(self) -> "Preemption":
        if jax.process_count() == 1:
            self._before = signal.signal(signal.SIGTERM, self._note)
        return self

    def __exit__(self, *_):
        if jax.process_count() == 1:
            signal.signal(signal.SIGTERM, self._before)

    def _note(self, _signal, _frame):
        self._asked = True

    def reached(self, step: int) -> bool:
        """True once the run should save and end after `step`."""
        if jax.process_count() == 1:
            return self._asked
        return multihost_utils.reached_preemption_sync_point(step)
