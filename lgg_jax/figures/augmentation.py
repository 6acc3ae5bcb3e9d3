"""Figure of each augmentation, applied alone to one slice.

    augmentation_sheet(image, mask, (donor_image, donor_mask), config.augment, "augmentation.png")

Geometric augmentations and CarveMix are shown on FLAIR with the mask contour, because image and mask must change
together. Intensity augmentations are shown on all three sequences, because each sequence is changed independently.
"""

import ml_collections
import numpy as np
from matplotlib.figure import Figure, SubFigure

from lgg_jax.data.volume import CHANNELS, FLAIR
from lgg_jax.figures.explore import show_with_contour

GEOMETRIC = ("rotation_degrees", "flip_horizontal", "flip_vertical", "crop_scale", "elastic")
INTENSITY = ("brightness", "contrast", "bias_field", "missing_sequence")
OFF = {name: (1.0, 1.0) if name == "crop_scale" else 0.0 for name in (*GEOMETRIC, *INTENSITY, "carve_mix")}
PROBABILITIES = ("flip_horizontal", "flip_vertical", "elastic", "bias_field", "missing_sequence", "carve_mix")
SAMPLES = 8  # random samples of each augmentation


def enable_only(config: ml_collections.ConfigDict, name: str) -> ml_collections.ConfigDict:
    """`config.augment` with one augmentation on and all others off. If the field is a probability, it is set to 1."""
    config = ml_collections.ConfigDict(config)
    config.update(OFF | {name: 1.0 if name in PROBABILITIES else config[name]})
    return config


def strongest(image: np.ndarray, mask: np.ndarray, config, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Augment 8 times and return the result whose image differs most from the original.

    A single random sample may be invisible, such as a rotation by half a degree.

    Returns:
      Image (height, width, 3) and mask (height, width).
    """
    import tensorflow as tf  # imported here because it takes seconds to load

    from lgg_jax.data.augment import augment

    alone = enable_only(config, name)
    seeds = (tf.constant([0, index], tf.int64) for index in range(SAMPLES))
    augmented = [augment(tf.constant(image), tf.constant(mask), seed, alone) for seed in seeds]
    image, mask = max(augmented, key=lambda pair: np.abs(pair[0].numpy() - image).mean())
    return image.numpy(), mask.numpy()


def paste_tumour(
    image: np.ndarray, mask: np.ndarray, donor: tuple[np.ndarray, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """The slice and its mask after CarveMix has pasted the tumour of the donor slice into them."""
    from lgg_jax.data.augment import carve_mix

    image, mask = carve_mix(image, mask, *donor, [0, 0], 1.0)
    return image.numpy(), mask.numpy()


def augmentation_sheet(
    image: np.ndarray, mask: np.ndarray, donor: tuple[np.ndarray, np.ndarray], config: ml_collections.ConfigDict, path
) -> None:
    """Save a PNG: geometric augmentations in the upper part, one row per intensity augmentation in the lower part.

    Args:
      image: (height, width, 3) float32, normalised.
      mask: (height, width) float32 in [0, 1].
      donor: image and mask of the slice whose tumour CarveMix pastes.
      config: `config.augment`. Its ranges are used, its probabilities are ignored.
    """
    figure = Figure(figsize=(7, 14.2), layout="constrained")
    upper, lower = figure.subfigures(2, height_ratios=[2.1, 5])
    # One grey scale per sequence: with a scale per image, a change of brightness would be invisible. The fat of the
    # scalp may exceed the scale.
    windows = np.percentile(image, [1, 97], axis=(0, 1)).T
    _geometric(upper, image, mask, donor, config, windows[FLAIR])
    _intensity(lower, image, mask, config, windows)
    figure.savefig(path, dpi=160)


def _geometric(part: SubFigure, image: np.ndarray, mask: np.ndarray, donor, config, window) -> None:
    part.suptitle("FLAIR with the mask contour (blue)", fontsize=11)
    panels = {"original": (image, mask)}
    panels |= {title(name, config): strongest(image, mask, config, name) for name in GEOMETRIC}
    panels[title("carve_mix", config)] = paste_tumour(image, mask, donor)
    grid = part.subplots(2, 4).ravel()
    grid[-1].axis("off")
    for axes, (label, (augmented, augmented_mask)) in zip(grid[:-1], panels.items(), strict=True):
        show_with_contour(axes, augmented[..., FLAIR], augmented_mask, window)
        axes.set_title(label, fontsize=10)


def _intensity(part: SubFigure, image: np.ndarray, mask: np.ndarray, config, windows) -> None:
    rows = {"original": image}
    rows |= {title(name, config): strongest(image, mask, config, name)[0] for name in INTENSITY}
    grid = part.subplots(len(rows), image.shape[-1])
    for row, (label, augmented) in zip(grid, rows.items(), strict=True):
        row[0].text(-0.03, 0.5, label, rotation=90, ha="right", va="center", transform=row[0].transAxes)
        for channel, axes in enumerate(row):
            show_with_contour(axes, augmented[..., channel], np.zeros_like(mask), windows[channel])
    for axes, sequence in zip(grid[0], CHANNELS[:3], strict=True):
        axes.set_title(sequence, fontsize=10)


def title(name: str, config: ml_collections.ConfigDict) -> str:
    """The name of an augmentation and its range in the config."""
    value = config[name]
    return {
        "rotation_degrees": "rotation, ±{}°",
        "flip_horizontal": "horizontal flip",
        "flip_vertical": "vertical flip",
        "crop_scale": "random crop, {} to {}",
        "elastic": "elastic deformation",
        "brightness": "brightness, ±{} SD",
        "contrast": "contrast, ±{}",
        "bias_field": "bias field",
        "missing_sequence": "missing sequence",
        "carve_mix": "CarveMix",
    }[name].format(*(value if isinstance(value, tuple) else (f"{value:g}",)))
