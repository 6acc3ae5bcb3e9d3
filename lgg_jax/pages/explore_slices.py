"""Sections of the page of `explore` that show slices: samples of the data set and the augmentations.

    samples(survey, Path("figures"))
    augmentation(survey.cases, config, Path("figures"))

Each function writes its figure to the folder and returns the parts of its section.
"""

from pathlib import Path

import ml_collections
import numpy as np
import pandas as pd
from markupsafe import Markup

from lgg_jax.data import dataset
from lgg_jax.data.survey import Survey
from lgg_jax.data.volume import find_geometry, network_images, network_masks
from lgg_jax.figures import augmentation as figure
from lgg_jax.figures.explore import sample_grid
from lgg_jax.pages.html import cards, paragraph, picture

SAMPLES = 24  # patients in the figure of sample slices


def samples(survey: Survey, folder: Path) -> list[Markup]:
    ranked = survey.cases[survey.cases["patient"].isin(survey.samples)].sort_values("tumour_pixels", kind="stable")
    if ranked.empty:
        return [paragraph("No patient has tumour.")]
    ranks = np.unique(np.linspace(0, len(ranked) - 1, min(SAMPLES, len(ranked))).round().astype(int))
    chosen = ranked.iloc[ranks]
    sample_grid({patient: survey.samples[patient] for patient in chosen["patient"]}, folder / "samples.png")
    pixels = chosen["tumour_pixels"]
    caption = ("FLAIR with the contour of the ground-truth mask (blue): the slice with the most tumour of "
               f"{len(chosen)} of {len(ranked)} patients with tumour. The patients are sorted by tumour size, from "
               f"{pixels.iloc[0]:,} to {pixels.iloc[-1]:,} pixels in the volume, and sampled at even steps of rank.")
    return [cards(picture(folder / "samples.png", caption, wide=True))]


def _largest(config: ml_collections.ConfigDict, patient: str) -> tuple[np.ndarray, np.ndarray, int]:
    """The slice with the most tumour as the network's input, its mask and its index."""
    volume = next(dataset.load_volumes(config.data, [patient]))
    index = int(volume.mask.sum(axis=(1, 2)).argmax())
    square = find_geometry(volume.image, config.data.size)
    return network_images(volume.image, square)[index], network_masks(volume.mask[index][None], square)[0], index


def augmentation(cases: pd.DataFrame, config: ml_collections.ConfigDict, folder: Path) -> list[Markup]:
    complete = cases[~cases["missing"].map(bool) & (cases["tumour_pixels"] > 0)]
    ranked = (cases if complete.empty else complete).sort_values("tumour_pixels", kind="stable")
    middle = len(ranked) // 2
    patient, donor = ranked["patient"].iloc[middle], ranked["patient"].iloc[middle - 1]
    image, mask, index = _largest(config, patient)
    figure.augmentation_sheet(image, mask, _largest(config, donor)[:2], config.augment, folder / "augmentation.png")
    off = [figure.title(name, config.augment) for name in figure.PROBABILITIES if not config.augment[name]]
    note = f" Disabled by default: {', '.join(off)}." if off else ""
    caption = (f"Augmentations of slice {index + 1} of {patient}. Each one is applied alone, with the range of "
               f"configs/default.py; the picture is the strongest of {figure.SAMPLES} random samples. CarveMix pastes "
               f"the tumour of {donor}. Training combines the augmentations. All pictures of a sequence have the same "
               f"grey scale.{note}")  # fmt: skip
    return [cards(picture(folder / "augmentation.png", caption, wide=True))]
