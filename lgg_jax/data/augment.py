"""Augmentation of one slice and its mask: pure functions of (slice, mask, seed).

    image, mask = augment(image, mask, seed=tf.constant([config.seed, example_number], tf.int64), config=config.augment)

Rotation, flips, random resized crop and elastic deformation are composed into one map of coordinates. Image and mask
are sampled through this map together and once, so they stay aligned and are interpolated only once. Each kind of
augmentation has its own random stream: switching one off does not change what the others draw.
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
      image: (height, width, channel) float32, normalised. With neighbouring slices, the channels of each slice follow
        one another.
      mask: (height, width) float32 in [0, 1], the tumour's share of each pixel.
      seed: (2,) int64, the seed of the run and the number of the example.
      config: `config.augment`.
      names: `config.data.channels`, the sequences of a slice.
      size: side of the output in pixels; 0 means the height and width of the input.

    Returns:
      The augmented image and mask: the input shapes, or (size, size, channel) and (size, size).
    """
    streams = {name: _stream(seed, name) for name in STREAMS}
    copies = _copies_of_flair(image, names)
    if _is_geometric(config) or size:
        rows, columns = _coordinates(size or image.shape[0], size or image.shape[1], image.shape[:2], streams, config)
        both = _sample(tf.concat([image, mask[..., None]], axis=-1), rows, columns)
        image, mask = both[..., :-1], both[..., -1]
    sequences = tf.reshape(image, [*image.shape[:2], -1, len(names)])  # neighbouring slices are augmented alike
    sequences = _intensity(sequences, streams, config)
    sequences = _missing_sequence(sequences, streams["missing"], config.missing_sequence, names)
    return _fill(tf.reshape(sequences, image.shape), copies, names), mask


def donor(seed: tf.Tensor, count: int) -> tf.Tensor:
    """The index of the donor slice for the example of this seed, of `count` slices with tumour: () int64."""
    return tf.random.stateless_uniform([], _stream(seed, "donor"), 0, count, tf.int64)


def carve_mix(
    image: tf.Tensor, mask: tf.Tensor, donor_image: tf.Tensor, donor_mask: tf.Tensor, seed: tf.Tensor,
    probability: float, names: Sequence[str] = SEQUENCES[:3],
) -> tuple[tf.Tensor, tf.Tensor]:
    """Copies the tumour of a donor slice into this slice, with a probability; to be called before `augment`.

    After CarveMix (Zhang et al. 2021, https://doi.org/10.1007/978-3-030-87193-2_19). The tumour keeps its place and
    brings a rim of two pixels. All heads fill their square, so the place lies within the brain. Half of the donors are
    mirrored. The seam is blended over three pixels, or the network could learn to find it. A sequence that is replaced
    by FLAIR in this slice or in the donor is FLAIR in the whole output, as no real scan has such a copy in the tumour
    alone.

    Args:
      image, donor_image: (height, width, channel) float32, as in `augment`.
      mask, donor_mask: (height, width) float32 in [0, 1], the tumour's share of each pixel.
      seed: (2,) int64, the seed of the run and the number of the example.
      probability: of a copy; otherwise the slice stays as it is.
      names: `config.data.channels`, the sequences of a slice.

    Returns:
      image and mask of the same shapes.
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
    """Rows and columns of an input of `shape` to sample the output pixels from: two arrays (height, width) float32."""
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
    """A random window as (scale_y, scale_x, offset_y, offset_x): a share of the side, inside the slice if it fits.

    If the range is wider than 0.15, height and width of the window differ by up to 10 %, as those of heads do. In a
    narrower range they are equal.
    """
    low, high = scale_range
    if low == high == 1.0:
        return tf.constant([1.0, 1.0, 0.0, 0.0])
    scale, ratio, y, x = tf.unstack(tf.random.stateless_uniform([4], seed))
    ratio = tf.sqrt(1 + 0.1 * (2 * ratio - 1)) if high - low > 0.15 else tf.constant(1.0)
    sides = (low + (high - low) * scale) * tf.stack([ratio, 1 / ratio])
    return tf.concat([sides, (2 * tf.stack([y, x]) - 1) * tf.maximum(1 - sides, 0.0)], axis=0)


def _elastic(height, width, streams, config) -> tf.Tensor:
    """Elastic displacements (height, width, 2) as shares of the side: noise on a 6×6 grid (Simard et al. 2003)."""
    active = tf.cast(_uniform(streams["elastic"], 0.0, 1.0) < config.elastic, tf.float32)
    return active * config.elastic_share * _smooth_noise(streams["field"], 6, height, width, 2)


def _smooth_noise(seed: tf.Tensor, points: int, height, width, channels: int) -> tf.Tensor:
    """Standard normal noise on a points × points grid, bicubic in between: (height, width, channels) float32."""
    grid = tf.random.stateless_normal([1, points, points, channels], seed)
    return tf.image.resize(grid, tf.stack([height, width]), method="bicubic")[0]


def _sample(planes: tf.Tensor, rows: tf.Tensor, columns: tf.Tensor) -> tf.Tensor:
    """Bilinear samples of planes (height, width, channel) at (rows, columns); edge values outside of the planes."""
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
    """Which sequences are copies of FLAIR, as a data set may replace a missing one: (sequence,) bool; FLAIR is True."""
    if "flair" not in names:
        return tf.zeros([len(names)], tf.bool)
    sequences = tf.reshape(image, [-1, len(names)])
    return tf.reduce_all(sequences == sequences[:, names.index("flair"), None], axis=0)


def _fill(image: tf.Tensor, copies: tf.Tensor, names: Sequence[str]) -> tf.Tensor:
    """The image with the sequences of `copies`, (sequence,) bool, replaced by FLAIR."""
    if "flair" not in names:
        return image
    sequences = tf.reshape(image, [*image.shape[:2], -1, len(names)])
    return tf.reshape(tf.where(copies, sequences[..., names.index("flair"), None], sequences), image.shape)


def _missing_sequence(image: tf.Tensor, seed: tf.Tensor, probability: float, names: Sequence[str]) -> tf.Tensor:
    """With `probability`, replaces one or more of the other sequences by FLAIR, every subset equally likely."""
    others = [channel for channel, name in enumerate(names) if name != "flair"]
    if not probability or not others or "flair" not in names:
        return image
    subsets = [subset for count in range(1, len(others) + 1) for subset in itertools.combinations(others, count)]
    is_missing = tf.constant([[channel in subset for channel in range(len(names))] for subset in subsets])
    drawn, which = tf.unstack(tf.random.stateless_uniform([2], seed))
    missing = is_missing[tf.cast(tf.floor(which * len(subsets)), tf.int32)] & (drawn < probability)
    # Not `_fill`: TensorFlow would then reorder the sums of `_intensity`, and the last bits would change.
    return tf.gather(image, tf.where(missing, names.index("flair"), tf.range(len(names))), axis=-1)


def _intensity(image: tf.Tensor, streams, config) -> tf.Tensor:
    """Random contrast (a factor), bias field and brightness (both added, in spreads of the volume) of each channel.

    The bias field of a coil is a factor of the raw intensity. The median of the brain is about four times its spread,
    so the factor is nearly a shift of the normalised intensity: 7 % are about 0.3 spreads.
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
