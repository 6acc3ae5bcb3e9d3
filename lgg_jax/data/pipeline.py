"""Input pipeline for training: shuffling, sampling, augmentation and batching with tf.data.

    slices = load_slices(cases)
    for batch in train_batches(slices, config, first_step=1200, num_steps=5000, host=0, hosts=1):
        ...                                    # {"image": (batch, size, size, channel), "mask", "weight", ...}

The number of a global example is i = step × batch_size + row. Its slice and its augmentation depend on (seed, i)
alone. Host h of H hosts yields the rows [h·B/H, (h+1)·B/H) of a batch of B. A run that resumes, on any number of hosts
and devices, therefore sees the same batches as an uninterrupted run, and no state of the pipeline is saved. The first
steps may use a smaller network grid (`config.train.start_size`).
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

_GRAIN = 1000  # tumour_fraction is rounded to thousandths, so that the arithmetic on positions is exact


@dataclasses.dataclass(frozen=True)
class Slices:
    """The network input of all training slices, in memory.

    Attributes:
      image: (slice, size, size, channel) float16, normalised; or (slice, feature), the features of a frozen backbone.
      mask: (slice, size, size) uint8, the tumour's share of each pixel in 1/255.
      tumour: (slice,) bool, whether the slice shows tumour.
      label: (slice,) float32, 0 or 1; NaN where it is unknown.
      clinical: (slice, width) float32, the encoded clinical values of the patient.
    """

    image: np.ndarray
    mask: np.ndarray
    tumour: np.ndarray
    label: np.ndarray
    clinical: np.ndarray


def load_slices(cases: Iterable[Case]) -> Slices:
    """Concatenates the rows of all cases.

    Raises:
      UserError: there is no case.
    """
    columns = {name: [] for name in ("images", "masks", "tumour", "labels", "clinical")}
    for case in cases:
        clinical = np.tile(case.clinical, (len(case.images), 1))
        for name, values in columns.items():
            values.append(clinical if name == "clinical" else getattr(case, name))
    if not columns["images"]:
        raise UserError("no training patient has a known label", "choose other patients or another target")
    return Slices(*(np.concatenate(values) for values in columns.values()))


def sample(slices: Slices) -> dict[str, np.ndarray]:
    """A batch of one example, to initialise a model with: image float32 and clinical."""
    return {"image": slices.image[:1].astype(np.float32), "clinical": slices.clinical[:1]}


def example_order(position: tf.Tensor, seed: int, tumour: np.ndarray, tumour_fraction: float) -> tf.Tensor:
    """The index of the slice that is global example `position`.

    Two streams of slices are interleaved: the slices with tumour, and all slices. Of any n consecutive examples,
    n × tumour_fraction (rounded) come from the slices with tumour. Each stream shuffles its slices anew in every epoch.
    Without any slice with tumour, all examples come from all slices.

    Args:
      position: () int64, the global example number.
      seed: the seed of the run.
      tumour: (slice,) bool, whether the slice shows tumour.
      tumour_fraction: between 0 and 1, rounded to thousandths.

    Returns:
      () int64, an index into the slices.
    """
    all_slices, tumour_slices = np.arange(len(tumour)), np.flatnonzero(tumour)
    tumour_seed, all_seed = 2 * seed, 2 * seed + 1
    if not len(tumour_slices):
        return _shuffled(position, all_slices, all_seed)
    thousandths = round(tumour_fraction * _GRAIN)
    from_tumour = position * thousandths // _GRAIN  # number of earlier examples that come from the tumour slices
    is_from_tumour = (position + 1) * thousandths // _GRAIN > from_tumour
    return tf.where(
        is_from_tumour,
        _shuffled(from_tumour, tumour_slices, tumour_seed),
        _shuffled(position - from_tumour, all_slices, all_seed),
    )


def _shuffled(place: tf.Tensor, pool: np.ndarray, seed: int) -> tf.Tensor:
    """Element `place` of an endless sequence in which every epoch is a new permutation of `pool`."""
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
    """This host's rows of the batches of steps first_step … num_steps − 1.

    Args:
      slices: the training slices.
      config: the whole config.
      first_step: the step to start or resume from.
      num_steps: the length of the run.
      host: the number of this host.
      hosts: the number of hosts.

    Returns:
      An iterator of {"image": (batch/hosts, size, size, channel), "mask": (batch/hosts, size, size) of 0 and 1,
      "clinical": (batch/hosts, width), "label": (batch/hosts,), "label_weight": (batch/hosts,), 0 where the label is
      unknown, "weight": (batch/hosts,) of ones}, all float32.

    Raises:
      UserError: the batch cannot be split evenly over the hosts.
    """
    if config.train.batch_size % hosts:
        raise UserError(
            f"config.train.batch_size={config.train.batch_size} cannot be split evenly over {hosts} hosts",
            "choose a multiple of the number of hosts",
        )
    switch = start_steps(config.train, num_steps)
    return itertools.chain(
        _batches(slices, config, first_step, min(switch, num_steps), host, hosts, config.train.start_size),
        _batches(slices, config, max(first_step, switch), num_steps, host, hosts),
    )


def start_steps(config: ml_collections.ConfigDict, num_steps: int) -> int:
    """The number of steps at the start of a run that use slices of `start_size`; `config` is `config.train`."""
    return round(config.start_share * num_steps) if config.start_size else 0


def _batches(
    slices: Slices, config: ml_collections.ConfigDict, first_step: int, end: int, host: int, hosts: int, size: int = 0
) -> Iterator[dict[str, np.ndarray]]:
    """`train_batches` of the steps first_step … end − 1, on a grid of `size` pixels; 0 means the grid of the slices."""
    if first_step >= end:
        return
    batch = config.train.batch_size
    rows = batch // hosts
    images, masks = tf.constant(slices.image), tf.constant(slices.mask)
    donors = tf.constant(np.flatnonzero(slices.tumour))
    known = np.isfinite(slices.label)
    others = {
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
        if image.shape.rank == 3:  # features of a frozen backbone cannot be augmented
            seed = tf.stack([tf.constant(config.seed, tf.int64), i])
            if config.augment.carve_mix and len(donors):
                donor_image, donor_mask = stored(donors[augment.donor(seed, len(donors))])
                image, mask = augment.carve_mix(
                    image, mask, donor_image, donor_mask, seed, config.augment.carve_mix, config.data.channels
                )
            image, mask = augment.augment(image, mask, seed, config.augment, config.data.channels, size)
        mask = tf.cast(mask >= 0.5, tf.float32)
        rest = {name: values[index] for name, values in others.items()}
        return {"image": image, "mask": mask, "weight": tf.constant(1.0)} | rest

    dataset = tf.data.Dataset.range((end - first_step) * rows)
    example = tf.autograph.experimental.do_not_convert(example)
    dataset = dataset.map(example, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    # A few batches ahead suffice. More would slow down the first steps, and the length of a run is measured on these.
    dataset = dataset.batch(rows, drop_remainder=True).prefetch(4)
    yield from dataset.as_numpy_iterator()
