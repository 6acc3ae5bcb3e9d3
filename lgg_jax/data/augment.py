"""Augmentation of one slice and its mask, a pure function of (slice, mask, seed).

    image, mask = augment(image, mask, seed=tf.constant([config.seed, example_number], tf.int64), config=config.augment)

Rotation, flips, random resized crop and elastic deformation are composed into one map of coordinates and image and
mask are sampled through it together, once: they cannot come apart, and nothing is blurred twice. Each kind draws
from its own random stream, so that switching one off leaves the others as they were.
"""

import itertools
from collections.abc import Sequence

import ml_collections
import tensorflow as tf

from lgg_jax.data.volume import SEQUENCES

STREAMS = (
    "rotation", "crop", "horizontal", "vertical", "elastic", "field", "brightness", "contrast", "missing", "donor",
    "carve", "bias",
)  # fmt: skip


def augment(
    image: tf.Tensor, mask: tf.Tensor, seed: tf.Tensor, config: ml_collections.ConfigDict,
    names: Sequence[str] = SEQUENCES[:3], size: int = 0,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Augments one example.

    Args:
      image: (height, width, channel) float32, normalised; with neighbouring slices, their channels one after another.
      mask: (height, width) float32 in [0, 1], the share of the pixel that is tumour.
      seed: (2,) int64, stands for the example's place in the training run.
      config: `config.augment`.
      names: `config.data.channels`, the sequences of a slice.
      size: of the square that is sampled, where it is another than that of the slice.

    Returns:
      image and mask of the same shapes, or of that size.
    """
    streams = {name: _stream(seed, name) for name in STREAMS}
    copies = _copies_of_flair(image, names)
    if _is_geometric(config) or size:
        rows, columns = _coordinates(size or image.shape[0], size or image.shape[1], image.shape[:2], streams, config)
        both = _sample(tf.concat([image, mask[..., None]], axis=-1), rows, columns)
        image, mask = both[..., :-1], both[..., -1]
    sequences = tf.reshape(image, [*image.shape[:2], -1, len(names)])  # neighbouring slices change alike
    sequences = _intensity(sequences, streams, config)
    sequences = _missing_sequence(sequences, streams["missing"], config.missing_sequence, names)
    return _fill(tf.reshape(sequences, image.shape), copies, names), mask


def donor(seed: tf.Tensor, count: int) -> tf.Tensor:
    """Which of `count` slices with tumour gives its own to the example of this seed: () int64."""
    return tf.random.stateless_uniform([], _stream(seed, "donor"), 0, count, tf.int64)


def carve_mix(
    image: tf.Tensor, mask: tf.Tensor, donor_image: tf.Tensor, donor_mask: tf.Tensor, seed: tf.Tensor,
    probability: float, names: Sequence[str] = SEQUENCES[:3],
) -> tuple[tf.Tensor, tf.Tensor]:
    """With `probability`, the donor's tumour and a rim of two pixels in their own place of this slice.

    After CarveMix (Zhang et al. 2021, https://doi.org/10.1007/978-3-030-87193-2_19). Heads lie alike in their
    squares, so a tumour comes to lie in a brain; every other donor is mirrored. The seam is blended over three
    pixels, else it would tell where to look. A sequence in whose place FLAIR stands, here or in the donor, is FLAIR
    in the outcome: no scan has it in the tumour alone. Shapes as in `augment`, to be called before it.
    """
    drawn, mirrored = tf.unstack(tf.random.stateless_uniform([2], _stream(seed, "carve")))
    both = tf.concat([donor_image, donor_mask[..., None]], axis=-1)
    both = tf.where(mirrored < 0.5, both, both[:, ::-1])
    near = tf.nn.max_pool2d(both[None, ..., -1:], 5, 1, "SAME")
    weight = tf.nn.avg_pool2d(near, 3, 1, "SAME")[0] * tf.cast(drawn < probability, tf.float32)
    copies = _copies_of_flair(image, names) | (_copies_of_flair(donor_image, names) & (drawn < probability))
    image = _fill(image * (1 - weight) + both[..., :-1] * weight, copies, names)
    return image, tf.where(weight[..., 0] > 0.5, both[..., -1], mask)


def _stream(seed: tf.Tensor, name: str) -> tf.Tensor:
    return tf.random.experimental.stateless_fold_in(seed, STREAMS.index(name))


def _is_geometric(config: ml_collections.ConfigDict) -> bool:
    flips = config.flip_horizontal or config.flip_vertical
    return bool(flips or config.rotation_degrees or config.elastic or tuple(config.crop_scale) != (1.0, 1.0))


def _coordinates(height: int, width: int, shape, streams, config) -> tuple[tf.Tensor, tf.Tensor]:
    """For each output pixel the row and column of an input of `shape` it is sampled from: (height, width) float32."""
    shape = tf.constant(list(shape), tf.float32)
    y = tf.linspace(-1.0, 1.0, height)[:, None] * tf.ones([1, width])
    x = tf.linspace(-1.0, 1.0, width)[None, :] * tf.ones([height, 1])
    y *= _sign(streams["vertical"], config.flip_vertical)
    x *= _sign(streams["horizontal"], config.flip_horizontal)
    scale_y, scale_x, offset_y, offset_x = tf.unstack(_crop(streams["crop"], config.crop_scale))
    y, x = y * scale_y + offset_y, x * scale_x + offset_x
    angle = _uniform(streams["rotation"], -1.0, 1.0) * config.rotation_degrees * (3.14159265 / 180)
    y, x = tf.cos(angle) * y - tf.sin(angle) * x, tf.sin(angle) * y + tf.cos(angle) * x
    rows, columns = (y + 1) / 2 * (shape[0] - 1), (x + 1) / 2 * (shape[1] - 1)
    if config.elastic:
        shift = _elastic(height, width, streams, config)
        rows, columns = rows + shift[..., 0] * shape[0], columns + shift[..., 1] * shape[1]
    return rows, columns


def _crop(seed: tf.Tensor, scale_range: tuple[float, float]) -> tf.Tensor:
    """(scale_y, scale_x, offset_y, offset_x): a window of `scale` times the side, within the slice where it fits.

    Where the range is wide, the two sides differ by up to 10 %: heads do. A narrow range means the scale alone.
    """
    low, high = scale_range
    if low == high == 1.0:
        return tf.constant([1.0, 1.0, 0.0, 0.0])
    scale, ratio, y, x = tf.unstack(tf.random.stateless_uniform([4], seed))
    ratio = tf.sqrt(1 + 0.1 * (2 * ratio - 1)) if high - low > 0.15 else tf.constant(1.0)
    sides = (low + (high - low) * scale) * tf.stack([ratio, 1 / ratio])
    return tf.concat([sides, (2 * tf.stack([y, x]) - 1) * tf.maximum(1 - sides, 0.0)], axis=0)


def _elastic(height, width, streams, config) -> tf.Tensor:
    """(height, width, 2) displacements as shares of the side: smooth noise from a 6×6 grid (Simard et al. 2003)."""
    active = tf.cast(_uniform(streams["elastic"], 0.0, 1.0) < config.elastic, tf.float32)
    return active * config.elastic_share * _smooth_noise(streams["field"], 6, height, width, 2)


def _smooth_noise(seed: tf.Tensor, points: int, height, width, channels: int) -> tf.Tensor:
    """(height, width, channels) float32: standard normal noise on points × points places, bicubic in between."""
    grid = tf.random.stateless_normal([1, points, points, channels], seed)
    return tf.image.resize(grid, tf.stack([height, width]), method="bicubic")[0]


def _sample(planes: tf.Tensor, rows: tf.Tensor, columns: tf.Tensor) -> tf.Tensor:
    """Bilinear samples of planes (height, width, channel) at (rows, columns); edge values beyond the edge."""
    shape = tf.shape(planes)
    height, width = shape[0], shape[1]
    rows = tf.clip_by_value(rows, 0.0, tf.cast(height - 1, tf.float32))
    columns = tf.clip_by_value(columns, 0.0, tf.cast(width - 1, tf.float32))
    top, left = tf.cast(tf.floor(rows), tf.int32), tf.cast(tf.floor(columns), tf.int32)
    down, right = (rows - tf.floor(rows))[..., None], (columns - tf.floor(columns))[..., None]
    bottom, end = tf.minimum(top + 1, height - 1), tf.minimum(left + 1, width - 1)
    flat = tf.reshape(planes, [height * width, -1])

    def at(row, column):
        return tf.gather(flat, row * width + column)

    upper = at(top, left) * (1 - right) + at(top, end) * right
    lower = at(bottom, left) * (1 - right) + at(bottom, end) * right
    return upper * (1 - down) + lower * down


def _copies_of_flair(image: tf.Tensor, names: Sequence[str]) -> tf.Tensor:
    """(sequence,) bool: in whose place FLAIR stands, as the data set fills a missing one; FLAIR's own is True."""
    if "flair" not in names:
        return tf.zeros([len(names)], tf.bool)
    sequences = tf.reshape(image, [-1, len(names)])
    return tf.reduce_all(sequences == sequences[:, names.index("flair"), None], axis=0)


def _fill(image: tf.Tensor, copies: tf.Tensor, names: Sequence[str]) -> tf.Tensor:
    """The image with FLAIR in the place of the sequences that are `copies` of it."""
    if "flair" not in names:
        return image
    sequences = tf.reshape(image, [*image.shape[:2], -1, len(names)])
    return tf.reshape(tf.where(copies, sequences[..., names.index("flair"), None], sequences), image.shape)


def _missing_sequence(image: tf.Tensor, seed: tf.Tensor, probability: float, names: Sequence[str]) -> tf.Tensor:
    """With `probability`, FLAIR in place of one, some or all others, each choice alike, as the data set fills them."""
    others = [channel for channel, name in enumerate(names) if name != "flair"]
    if not probability or not others or "flair" not in names:
        return image
    subsets = [subset for count in range(1, len(others) + 1) for subset in itertools.combinations(others, count)]
    is_missing = tf.constant([[channel in subset for channel in range(len(names))] for subset in subsets])
    drawn, which = tf.unstack(tf.random.stateless_uniform([2], seed))
    missing = is_missing[tf.cast(tf.floor(which * len(subsets)), tf.int32)] & (drawn < probability)
    # Not `_fill`: after its `where` TensorFlow would add up `_intensity` in another order, which changes the last bit.
    return tf.gather(image, tf.where(missing, names.index("flair"), tf.range(len(names))), axis=-1)


def _intensity(image: tf.Tensor, streams, config) -> tf.Tensor:
    """Contrast (a factor), a bias field and brightness (shifts, in standard deviations of the volume), by channel.

    A coil's bias field multiplies; within the brain, whose median is about four times its spread, that is nearly a
    shift of the normalised intensity (0.3 of them: 7 %).
    """
    channels = [image.shape[-1]]
    if config.contrast:
        image *= tf.random.stateless_uniform(channels, streams["contrast"], 1 - config.contrast, 1 + config.contrast)
    if config.bias_field:
        active, seed = tf.unstack(tf.random.experimental.stateless_split(streams["bias"], 2))
        field = config.bias_field_deviation * _smooth_noise(seed, 3, *image.shape[:2], *channels)
        image += field[:, :, None] * tf.cast(_uniform(active, 0.0, 1.0) < config.bias_field, tf.float32)
    if config.brightness:
        image += tf.random.stateless_uniform(channels, streams["brightness"], -config.brightness, config.brightness)
    return image


def _uniform(seed: tf.Tensor, low: float, high: float) -> tf.Tensor:
    return tf.random.stateless_uniform([], seed, low, high)


def _sign(seed: tf.Tensor, probability: float) -> tf.Tensor:
    return tf.where(_uniform(seed, 0.0, 1.0) < probability, -1.0, 1.0)
