"""Test helpers: augmentation of one slice and its mask with many seeds."""

import ml_collections
import numpy as np
import tensorflow as tf

from configs import default
from lgg_jax.data.augment import augment

SIZE = 32
OFF = {
    "rotation_degrees": 0.0, "flip_horizontal": 0.0, "flip_vertical": 0.0, "crop_scale": (1.0, 1.0),
    "brightness": 0.0, "contrast": 0.0, "bias_field": 0.0, "elastic": 0.0, "missing_sequence": 0.0,
}  # fmt: skip
GEOMETRIC = {
    "rotation": {"rotation_degrees": 30.0},
    "horizontal": {"flip_horizontal": 1.0},
    "vertical": {"flip_vertical": 1.0},
    "crop": {"crop_scale": (0.7, 1.2)},
    "elastic": {"elastic": 1.0, "elastic_share": 0.04},
}
ALL = {name: value for fields in GEOMETRIC.values() for name, value in fields.items()}
INTENSITY = {"brightness": 0.2, "contrast": 0.2, "bias_field": 1.0}
EVERYTHING = {**ALL, **INTENSITY, "missing_sequence": 0.5, "flip_horizontal": 0.5, "flip_vertical": 0.5}


def config(**fields) -> ml_collections.ConfigDict:
    """Return `config.augment` with every kind of augmentation off except `fields`."""
    result = default.get_config().augment
    result.update(OFF | fields)
    return result


def run(image, mask, seeds=range(1), **fields) -> tuple[np.ndarray, np.ndarray]:
    """Return images (seed, height, width, 3) and masks (seed, height, width) for the example numbers `seeds`."""
    image, mask = tf.constant(image, tf.float32), tf.constant(mask, tf.float32)
    chosen = config(**fields)

    def example(number):
        return augment(image, mask, tf.stack([tf.constant(7, tf.int64), number]), chosen)

    numbers = tf.data.Dataset.from_tensor_slices(np.array(seeds, np.int64))
    mapped = numbers.map(tf.autograph.experimental.do_not_convert(example)).batch(len(seeds))
    images, masks = mapped.get_single_element()
    return images.numpy(), masks.numpy()


def noise(seed=0) -> np.ndarray:
    """Return an image of white noise, (SIZE, SIZE, 3) float32."""
    return np.random.default_rng(seed).normal(size=(SIZE, SIZE, 3)).astype(np.float32)


def lopsided() -> np.ndarray:
    """Return a mask without mirror symmetry, (SIZE, SIZE) float32."""
    mask = np.zeros((SIZE, SIZE), np.float32)
    mask[6:14, 5:25] = mask[6:24, 5:11] = 1
    return mask
