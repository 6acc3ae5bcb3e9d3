"""Training batches in which a step is a position: nothing of the input is ever saved.

    slices = load_slices(cases)
    for batch in train_batches(slices, config, first_step=1200, num_steps=5000, host=0, hosts=1):
        ...                                    # {"image": (batch, size, size, channel), "mask", "weight", ...}

Global example i = step × batch_size + row. Which slice it is, and how it is augmented, is a function of (seed, i)
alone; host h of H takes rows [h·B/H, (h+1)·B/H). So a run that was killed, or goes on with other hosts and devices,
sees the batches that it would have seen. The first steps may see coarser slices (`config.train.start_size`).
"""

import dataclasses
import itertools
from collections.abc import Iterable, Iterator

import ml_collections
import numpy as np
import tensorflow as tf

from lgg_jax.data import augment
from lgg_jax.data.cases import Case
from lgg_jax.errors import UserError

_GRAIN = 1000  # tumour_fraction is used as a whole number of thousandths: position arithmetic stays exact


@dataclasses.dataclass(frozen=True)
class Slices:
    """All training slices as the network sees them, in memory.

    Attributes:
      image: (slice, size, size, channel) float16, normalised; or (slice, feature) of a backbone that is frozen.
      mask: (slice, size, size) uint8, share of tumour in 1/255.
      tumour: (slice,) bool, whether the slice shows tumour.
      label: (slice,) float32, 0 or 1; NaN where not known.
      clinical: (slice, width) float32, of the slice's patient.
    """

    image: np.ndarray
    mask: np.ndarray
    tumour: np.ndarray
    label: np.ndarray
    clinical: np.ndarray


def load_slices(cases: Iterable[Case]) -> Slices:
    """The rows of all cases, one after another."""
    columns = {name: [] for name in ("images", "masks", "tumour", "labels", "clinical")}
    for case in cases:
        clinical = np.tile(case.clinical, (len(case.images), 1))
        for name, values in columns.items():
            values.append(clinical if name == "clinical" else getattr(case, name))
    if not columns["images"]:
        raise UserError("no training patient has what the run is to learn", "choose other patients or another target")
    return Slices(*(np.concatenate(values) for values in columns.values()))


def sample(slices: Slices) -> dict[str, np.ndarray]:
    """A batch of one, for the shapes."""
    return {"image": slices.image[:1].astype(np.float32), "clinical": slices.clinical[:1]}


def example_order(position: tf.Tensor, seed: int, tumour: np.ndarray, tumour_fraction: float) -> tf.Tensor:
    """The slice shown as global example `position`.

    Of any n examples in a row, n × tumour_fraction (rounded) come from the tumour slices, the others from all
    slices. Each of the two streams runs through its slices in a new random order every epoch.

    Args:
      position: () int64, the global example number.
      tumour: (slice,) bool.

    Returns:
      () int64, an index into the slices.
    """
    all_slices, tumour_slices = np.arange(len(tumour)), np.flatnonzero(tumour)
    tumour_seed, all_seed = 2 * seed, 2 * seed + 1
    if not len(tumour_slices):
        return _shuffled(position, all_slices, all_seed)
    thousandths = round(tumour_fraction * _GRAIN)
    from_tumour = position * thousandths // _GRAIN  # how many of the examples before this one
    is_from_tumour = (position + 1) * thousandths // _GRAIN > from_tumour
    return tf.where(
        is_from_tumour,
        _shuffled(from_tumour, tumour_slices, tumour_seed),
        _shuffled(position - from_tumour, all_slices, all_seed),
    )


def _shuffled(place: tf.Tensor, pool: np.ndarray, seed: int) -> tf.Tensor:
    """Entry `place` of the endless sequence in which every epoch is a new permutation of `pool`."""
    epoch, index = place // len(pool), place % len(pool)
    key = tf.stack([tf.constant(seed, tf.int64), epoch])
    shuffled = tf.random.experimental.index_shuffle(index, key, tf.constant(len(pool) - 1, tf.int64))
    return tf.gather(tf.constant(pool, tf.int64), shuffled)


def train_batches(
    slices: Slices,
    config: ml_collections.ConfigDict,
    first_step: int,
    num_steps: int,
    host: int = 0,
    hosts: int = 1,
) -> Iterator[dict[str, np.ndarray]]:
    """This host's share of the batches of steps first_step … num_steps − 1.

    Yields:
      image (batch/hosts, size, size, channel) float32, mask (batch/hosts, size, size) float32 of 0 and 1,
      clinical (batch/hosts, width), label (batch/hosts,) with label_weight 0 where it is not known,
      weight (batch/hosts,) of ones, all float32.
    """
    if config.train.batch_size % hosts:
        raise UserError(
            f"config.train.batch_size={config.train.batch_size} cannot be shared by {hosts} hosts",
            "choose a multiple of the hosts",
        )
    switch = start_steps(config.train, num_steps)
    return itertools.chain(
        _batches(slices, config, first_step, min(switch, num_steps), host, hosts, config.train.start_size),
        _batches(slices, config, max(first_step, switch), num_steps, host, hosts),
    )


def start_steps(config: ml_collections.ConfigDict, num_steps: int) -> int:
    """How many steps of a run see slices of `start_size`; `config` is `config.train`."""
    return round(config.start_share * num_steps) if config.start_size else 0


def _batches(
    slices: Slices, config: ml_collections.ConfigDict, first_step: int, end: int, host: int, hosts: int, size: int = 0
) -> Iterator[dict[str, np.ndarray]]:
    """`train_batches` of the steps first_step … end − 1, sampled on a grid of `size` where it is not 0."""
    if first_step >= end:
        return
    batch = config.train.batch_size
    rows = batch // hosts
    images, masks = tf.constant(slices.image), tf.constant(slices.mask)
    donors = tf.constant(np.flatnonzero(slices.tumour))
    known = np.isfinite(slices.label)
    beside = {
        "clinical": tf.constant(slices.clinical),
        "label": tf.constant(np.where(known, slices.label, 0).astype(np.float32)),
        "label_weight": tf.constant(known.astype(np.float32)),
    }

    def position(row: tf.Tensor) -> tf.Tensor:
        return (first_step + row // rows) * batch + host * rows + row % rows

    def stored(index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return tf.cast(images[index], tf.float32), tf.cast(masks[index], tf.float32) / 255

    def example(row: tf.Tensor) -> dict[str, tf.Tensor]:
        i = position(row)
        index = example_order(i, config.seed, slices.tumour, config.data.tumour_fraction)
        image, mask = stored(index)
        if image.shape.rank == 3:  # features of a frozen backbone are no picture
            seed = tf.stack([tf.constant(config.seed, tf.int64), i])
            if config.augment.carve_mix and len(donors):
                given = stored(donors[augment.donor(seed, len(donors))])
                given = (*given, seed, config.augment.carve_mix, config.data.channels)
                image, mask = augment.carve_mix(image, mask, *given)
            image, mask = augment.augment(image, mask, seed, config.augment, config.data.channels, size)
        mask = tf.cast(mask >= 0.5, tf.float32)
        rest = {name: values[index] for name, values in beside.items()}
        return {"image": image, "mask": mask, "weight": tf.constant(1.0)} | rest

    dataset = tf.data.Dataset.range((end - first_step) * rows)
    example = tf.autograph.experimental.do_not_convert(example)
    dataset = dataset.map(example, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    # A few batches ahead are enough; more would only take the processor from the first steps, whose rate is measured.
    dataset = dataset.batch(rows, drop_remainder=True).prefetch(4)
    yield from dataset.as_numpy_iterator()
