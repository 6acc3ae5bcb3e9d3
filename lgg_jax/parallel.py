"""Data parallelism over devices and hosts. No other module uses pmap, devices or process indices.

    step = parallel.map_step(train_step)                  # train_step processes the shard of one device
    state, metrics = step(state, parallel.shard(batch))   # state: an ordinary pytree, replicated

The state has no device axis (`in_axes=None`): JAX replicates it.
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
# Seconds that a process waits for the others when it ends. If an error ends one process, the others never finish, and
# the five minutes of JAX's default would be wasted.
_SHUTDOWN_SECONDS = 60


def initialize() -> None:
    """Join the other processes of a multi-host run. Call it before any computation.

    If JAX_COORDINATOR_ADDRESS is set, the number of processes is JAX_NUM_PROCESSES and the index of this process is
    JAX_PROCESS_ID. Otherwise, JAX gets all three from Slurm, Kubernetes or the TPU runtime.

    Raises:
      UserError: there is no cluster, or JAX_NUM_PROCESSES or JAX_PROCESS_ID is not a number.
    """
    address = os.environ.get("JAX_COORDINATOR_ADDRESS")
    if address is None:
        try:
            jax.distributed.initialize(shutdown_timeout_seconds=_SHUTDOWN_SECONDS)
        except ValueError as error:  # JAX raises it if it finds no cluster.
            raise UserError(
                f"--distributed, but no Slurm, Kubernetes or TPU slice was found ({error})",
                "omit it on one machine, or set JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID",
            ) from error
        return
    try:
        processes, index = int(os.environ["JAX_NUM_PROCESSES"]), int(os.environ["JAX_PROCESS_ID"])
    except (KeyError, ValueError) as error:
        raise UserError(
            f"JAX_COORDINATOR_ADDRESS is set, but JAX_NUM_PROCESSES or JAX_PROCESS_ID is not a number ({error})",
            "set all three in every process",
        ) from error
    # With cluster detection, JAX under Slurm would restrict the process to one of its GPUs.
    jax.distributed.initialize(
        address, processes, index, cluster_detection_method="deactivate", shutdown_timeout_seconds=_SHUTDOWN_SECONDS
    )


def map_step(step: Callable) -> Callable:
    """Map a training step over all devices: (state, sharded batch) → (state, metrics).

    On one host, the memory of the old state is reused for the new one (donation). Across hosts it is not: pmap
    replicates the first state over the local devices and deletes it, although the copy on the first device shares its
    memory.
    """
    donated = (0,) if jax.process_count() == 1 else ()
    return jax.pmap(step, axis_name=AXIS, in_axes=(None, 0), out_axes=(None, None), donate_argnums=donated)


def replicate(state):
    """Replicate the state over the devices, as `map_step` returns it.

    Without it, the step would be compiled twice: for the initial state and for a state that a step returned. Across
    hosts, the state is returned unchanged, because pmap replicates it.
    """
    if jax.process_count() > 1:
        return state
    return jax.device_put(state, NamedSharding(Mesh(np.array(jax.devices()), (AXIS,)), PartitionSpec()))


def map_local(function: Callable) -> Callable:
    """Map a function over the devices of this host: (variables, sharded rows) → sharded rows.

    It does not synchronise with other hosts.
    """
    return jax.pmap(function, in_axes=(None, 0), devices=jax.local_devices())


def shard(batch):
    """Shard every (rows, …) array of this host over its devices: (devices, rows / devices, …)."""
    devices = local_devices()
    return jax.tree.map(lambda x: x.reshape(devices, len(x) // devices, *x.shape[1:]), batch)


def check_batch(batch_size: int, accumulation: int) -> None:
    """Raise UserError if the global batch cannot be divided evenly between devices and accumulation parts."""
    parts = jax.device_count() * accumulation
    if batch_size % parts:
        raise UserError(
            f"config.train.batch_size={batch_size} cannot be split evenly over {jax.device_count()} devices"
            f" × {accumulation} accumulation parts",
            f"choose a multiple of {parts}",
        )


all_sum = partial(jax.lax.psum, axis_name=AXIS)
all_mean = partial(jax.lax.pmean, axis_name=AXIS)


def device_key(key: jax.Array) -> jax.Array:
    """Return a random key that differs between devices. Call it inside a mapped step."""
    return jax.random.fold_in(key, jax.lax.axis_index(AXIS))


def to_local(tree):
    """Return the copy of a replicated tree on this host's first device. It is usable without the other hosts."""
    return jax.tree.map(lambda x: x.addressable_data(0) if isinstance(x, jax.Array) else x, tree)


def single_device_sharding() -> jax.sharding.Sharding:
    """Return the sharding of an array on this host's first device."""
    return jax.sharding.SingleDeviceSharding(jax.local_devices()[0])


def portable(tree):
    """Return the tree in the form that a checkpoint stores.

    Across hosts it has NumPy arrays, because Orbax refuses JAX arrays that only one host can address.
    """
    return tree if jax.process_count() == 1 else jax.tree.map(np.array, tree)


def gather(rows: np.ndarray) -> np.ndarray:
    """Return the rows of all hosts, concatenated in the order of the hosts. Every host must call it.

    Args:
      rows: (n, …) float; n may differ between hosts.
    """
    if jax.process_count() == 1:
        return rows
    counts = multihost_utils.process_allgather(np.array([len(rows)])).ravel()
    padded = np.zeros((counts.max(), *rows.shape[1:]), rows.dtype)
    padded[: len(rows)] = rows
    gathered = multihost_utils.process_allgather(padded)
    return np.concatenate([block[:count] for block, count in zip(gathered, counts, strict=True)])


def local_devices() -> int:
    """Return the number of this host's devices."""
    return jax.local_device_count()


def describe_devices() -> str:
    """Return a description of all devices of the run, such as "8 × tpu (TPU v4)"."""
    kinds = collections.Counter(f"{device.platform} ({device.device_kind})" for device in jax.devices())
    return ", ".join(f"{count} × {kind}" for kind, count in kinds.items())


def on_cpu() -> bool:
    """Return whether the computation runs on CPUs."""
    return jax.default_backend() == "cpu"


def host_items(items: list) -> list:
    """Return the items of this host: with k hosts, every k-th item."""
    return items[jax.process_index() :: jax.process_count()]


def host() -> tuple[int, int]:
    """Return the index of this host and the number of hosts."""
    return jax.process_index(), jax.process_count()


def from_first_host(value: int) -> int:
    """Return the value of the first host. Every host must call it."""
    return int(multihost_utils.broadcast_one_to_all(np.array(value))) if jax.process_count() > 1 else value


def is_first_host() -> bool:
    """Return whether this is the first host, which prints and writes files."""
    return jax.process_index() == 0


def barrier(name: str) -> None:
    """Wait until every host has called `barrier` with this name."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


class Preemption:
    """Context manager that catches SIGTERM, which Slurm, Kubernetes and TPU maintenance send to stop a run.

    Across hosts, JAX's preemption service handles the signal, and all hosts stop at the same step.
    """

    def __init__(self):
        self._received = False

    def __enter__(self) -> "Preemption":
        if jax.process_count() == 1:
            self._before = signal.signal(signal.SIGTERM, self._receive)
        return self

    def __exit__(self, *_):
        if jax.process_count() == 1:
            signal.signal(signal.SIGTERM, self._before)

    def _receive(self, _signal, _frame):
        self._received = True

    def reached(self, step: int) -> bool:
        """Return whether the run must save and stop after `step`."""
        if jax.process_count() == 1:
            return self._received
        return multihost_utils.reached_preemption_sync_point(step)
