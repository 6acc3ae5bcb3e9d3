"""Each augmentation alone on one slice, to be seen before it is trained with.

    augmentation_sheet(image, mask, (other_image, other_mask), config.augment, "augmentation.png")

Geometric kinds and CarveMix on FLAIR with the outline, as image and mask must change together; kinds that change
intensities on all three sequences, as each draws its own change.
"""

import ml_collections
import numpy as np
from matplotlib.figure import Figure, SubFigure

from lgg_jax.data.volume import CHANNELS, FLAIR
from lgg_jax.figures.explore import outlined

GEOMETRIC = ("rotation_degrees", "flip_horizontal", "flip_vertical", "crop_scale", "elastic")
INTENSITY = ("brightness", "contrast", "bias_field", "missing_sequence")
OFF = {name: (1.0, 1.0) if name == "crop_scale" else 0.0 for name in (*GEOMETRIC, *INTENSITY, "carve_mix")}
# Fields that are probabilities.
CERTAIN = ("flip_horizontal", "flip_vertical", "elastic", "bias_field", "missing_sequence", "carve_mix")
DRAWS = 8


def only(config: ml_collections.ConfigDict, name: str) -> ml_collections.ConfigDict:
    """`config.augment` with the one kind on and all others off; what is a probability becomes 1."""
    config = ml_collections.ConfigDict(config)
    config.update(OFF | {name: 1.0 if name in CERTAIN else config[name]})
    return config


def strongest(image: np.ndarray, mask: np.ndarray, config, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Of 8 draws of one kind the image (height, width, 3) and mask (height, width) that differ most from those given.

    One draw alone may be next to nothing: a rotation by half a degree.
    """
    import tensorflow as tf  # here: this alone needs it, and takes seconds to load

    from lgg_jax.data.augment import augment

    alone = only(config, name)
    seeds = (tf.constant([0, draw], tf.int64) for draw in range(DRAWS))
    drawn = [augment(tf.constant(image), tf.constant(mask), seed, alone) for seed in seeds]
    image, mask = max(drawn, key=lambda pair: np.abs(pair[0].numpy() - image).mean())
    return image.numpy(), mask.numpy()


def mixed(image: np.ndarray, mask: np.ndarray, other: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The slice and its mask with the other's tumour in it."""
    from lgg_jax.data.augment import carve_mix

    image, mask = carve_mix(image, mask, *other, [0, 0], 1.0)
    return image.numpy(), mask.numpy()


def augmentation_sheet(
    image: np.ndarray, mask: np.ndarray, other: tuple[np.ndarray, np.ndarray], config: ml_collections.ConfigDict, path
) -> None:
    """A PNG: above the original and the geometric kinds, below a row for the original and each kind of intensities.

    Args:
      image: (height, width, 3) float32, normalised.
      mask: (height, width) float32 in [0, 1].
      other: image and mask of the slice that gives its tumour to CarveMix.
      config: `config.augment`; its ranges are used, its probabilities are not.
    """
    figure = Figure(figsize=(7, 14.2), layout="constrained")
    upper, lower = figure.subfigures(2, height_ratios=[2.1, 5])
    # One grey scale a sequence, or a change of brightness would not show; the scalp's fat may be cut off.
    windows = np.percentile(image, [1, 97], axis=(0, 1)).T
    _geometric(upper, image, mask, other, config, windows[FLAIR])
    _intensity(lower, image, mask, config, windows)
    figure.savefig(path, dpi=160)


def _geometric(part: SubFigure, image: np.ndarray, mask: np.ndarray, other, config, window) -> None:
    part.suptitle("FLAIR with the outline", fontsize=11)
    kinds = {"original": (image, mask)}
    kinds |= {title(name, config): strongest(image, mask, config, name) for name in GEOMETRIC}
    kinds[title("carve_mix", config)] = mixed(image, mask, other)
    grid = part.subplots(2, 4).ravel()
    grid[-1].axis("off")
    for axes, (label, (changed, outline)) in zip(grid[:-1], kinds.items(), strict=True):
        outlined(axes, changed[..., FLAIR], outline, window)
        axes.set_title(label, fontsize=10)


def _intensity(part: SubFigure, image: np.ndarray, mask: np.ndarray, config, windows) -> None:
    kinds = {"original": image}
    kinds |= {title(name, config): strongest(image, mask, config, name)[0] for name in INTENSITY}
    grid = part.subplots(len(kinds), image.shape[-1])
    for row, (label, changed) in zip(grid, kinds.items(), strict=True):
        row[0].text(-0.03, 0.5, label, rotation=90, ha="right", va="center", transform=row[0].transAxes)
        for channel, axes in enumerate(row):
            outlined(axes, changed[..., channel], np.zeros_like(mask), windows[channel])
    for axes, sequence in zip(grid[0], CHANNELS[:3], strict=True):
        axes.set_title(sequence, fontsize=10)


def title(name: str, config: ml_collections.ConfigDict) -> str:
    """The kind and its range, as the config has it."""
    value = config[name]
    return {
        "rotation_degrees": "rotation, ±{}°",
        "flip_horizontal": "horizontal flip",
        "flip_vertical": "vertical flip",
        "crop_scale": "random crop, {} to {}",
        "elastic": "elastic",
        "brightness": "brightness, ±{} SD",
        "contrast": "contrast, ±{}",
        "bias_field": "bias field",
        "missing_sequence": "missing sequence",
        "carve_mix": "CarveMix",
    }[name].format(*(value if isinstance(value, tuple) else (f"{value:g}",)))
