"""Training batches in which a step is a position: nothing of the input is ever saved.

    slices = load_slices(volumes, config.data)
    for batch in train_batches(slices, config, first_step=1200, num_steps=5000, host=0, hosts=1):
        ...                                    # {"image": (batch, size, size, channel), "mask", "weight", ...}

Global example i = step × batch_size + row. Which slice it is, and how it is augmented, is a function of (seed, i)
alone; host h of H takes rows [h·B/H, (h+1)·B/H). So a run that was killed, or goes on with other hosts and devices,
sees the batches that it would have seen.
"""

import dataclasses
from collections.abc import Iterable, Iterator

import ml_collections
import numpy as np
import tensorflow as tf

from lgg_jax.data import augment, volume
from lgg_jax.errors import UserError

_GRAIN = 1000  # tumour_fraction is used as a whole number of thousandths: position arithmetic stays exact


@dataclasses.dataclass(frozen=True)
class Slices:
    """All training slices on the network's grid, in memory.

    Attributes:
      image: (slice, size, size, channel) float16, normalised.
      mask: (slice, size, size) uint8, share of tumour in 1/255.
      tumour: (slice,) bool, whether the slice shows tumour.
    """

    image: np.ndarray
    mask: np.ndarray
    tumour: np.ndarray


def load_slices(volumes: Iterable[volume.Volume], config: ml_collections.ConfigDict) -> Slices:
    """Brings every volume onto the network's grid (`config.size`, `config.crop`)."""
    images, masks, tumour = [], [], []
    for scan in volumes:
        if scan.mask is None:
            raise UserError(f"patient {scan.patient} has no mask", "train on patients with masks only")
        geometry = volume.find_geometry(scan.image, config.size, config.crop)
        image = volume.network_images(scan.image, geometry).astype(np.float16)
        images.append(volume.with_neighbours(image, config.context))
        masks.append(np.round(255 * volume.network_masks(scan.mask, geometry)).astype(np.uint8))
        tumour.append(scan.mask.any(axis=(1, 2)))
    if not images:
        raise UserError("no training patients", "look at splits.json in the workdir")
    return Slices(np.concatenate(images), np.concatenate(masks), np.concatenate(tumour))


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
    share = round(tumour_fraction * _GRAIN) if tumour.any() else 0
    in_tumour = position * share // _GRAIN  # how many of the examples before this one came from the tumour stream
    is_tumour = (position + 1) * share // _GRAIN > in_tumour
    pools = (np.flatnonzero(tumour), np.arange(len(tumour)))
    chosen = [
        _shuffled(place, pool, 2 * seed + stream)
        for stream, (pool, place) in enumerate(zip(pools, (in_tumour, position - in_tumour), strict=True))
        if len(pool)
    ]
    return tf.where(is_tumour, chosen[0], chosen[-1])


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
      weight (batch/hosts,) float32 ones.
    """
    batch = config.train.batch_size
    if batch % hosts:
        raise UserError(
            f"config.train.batch_size={batch} cannot be shared by {hosts} hosts", "choose a multiple of the hosts"
        )
    rows = batch // hosts
    images, masks = tf.constant(slices.image), tf.constant(slices.mask)

    def position(row: tf.Tensor) -> tf.Tensor:
        return (first_step + row // rows) * batch + host * rows + row % rows

    def example(row: tf.Tensor) -> dict[str, tf.Tensor]:
        i = position(row)
        index = example_order(i, config.seed, slices.tumour, config.data.tumour_fraction)
        image, mask = tf.cast(images[index], tf.float32), tf.cast(masks[index], tf.float32) / 255
        seed = tf.stack([tf.constant(config.seed, tf.int64), i])
        image, mask = augment.augment(image, mask, seed, config.augment)
        return {"image": image, "mask": tf.cast(mask >= 0.5, tf.float32), "weight": tf.constant(1.0)}

    dataset = tf.data.Dataset.range((num_steps - first_step) * rows)
    example = tf.autograph.experimental.do_not_convert(example)
    dataset = dataset.map(example, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    # A few batches ahead are enough; more would only take the processor from the first steps, whose rate is measured.
    dataset = dataset.batch(rows, drop_remainder=True).prefetch(4)
    return dataset.as_numpy_iterator()
