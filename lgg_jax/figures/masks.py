"""Figures of segmentation masks and of Dice scores. They do not use matplotlib's global state.

    slices = [key_slice(patient, volume_dice, image, ground_truth, prediction) for …]
    overlay_grid(slices, "overlays.png")                # the patients with the best, median and worst volume Dice
    case_layers(slices, "cases")                        # the same patients; FLAIR and contours in separate files
    dice_distribution(cases, "dice.png")                # cases: the rows of cases.csv
    overlay_image(image, ground_truth, prediction)      # an array, for TensorBoard

A key slice is one slice of a patient. It does not keep the volume in memory.
"""

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from PIL import Image

from lgg_jax.data.volume import FLAIR
from lgg_jax.metrics.intervals import summary
from lgg_jax.metrics.surface import surface
from lgg_jax.workdir import write_json

# From the palette of Okabe and Ito: distinguishable with every common form of colour vision and on a grey image.
COLOURS = {"ground_truth": "#56B4E9", "prediction": "#D55E00", "both": "#F0E442"}
# The contour of each mask is the file <case>_<name>.png of `case_layers`.
CONTOUR_FILES = {"ground_truth": "truth", "prediction": "prediction"}


@dataclasses.dataclass(frozen=True)
class KeySlice:
    """The slice that represents a patient.

    Attributes:
      number: the position of the slice in the volume, counted from 1.
      flair: (height, width).
      ground_truth, prediction: (height, width) bool.
    """

    patient: str
    volume_dice: float
    number: int
    flair: np.ndarray
    ground_truth: np.ndarray
    prediction: np.ndarray


def key_slice(patient: str, volume_dice: float, image, ground_truth, prediction) -> KeySlice:
    """The slice with the largest ground-truth area.

    If the ground truth is empty, it is the slice with the largest predicted area. If both masks are empty, it is the
    first slice.

    Args:
      image: (slice, height, width, channel).
      ground_truth, prediction: (slice, height, width) bool.
    """
    mask = ground_truth if ground_truth.any() else prediction
    index = int(mask.sum(axis=(1, 2)).argmax())
    # Copies, because views would keep the whole volume in memory.
    planes = (np.array(volume[index]) for volume in (image[..., FLAIR], ground_truth, prediction))
    return KeySlice(patient, volume_dice, index + 1, *planes)


def overlay_grid(slices: list[KeySlice], path) -> None:
    """Save a PNG with one row for each of the best, median and worst volume Dice. Patients with a NaN are excluded.

    Raises:
      ValueError: no patient has a volume Dice.
    """
    rows = _best_median_worst(slices)
    both = ("ground_truth", "prediction")
    columns = {"FLAIR": (), "ground truth": both[:1], "prediction": both[1:], "both, magnified": both}
    figure = Figure(figsize=(11, 3 * len(rows) + 0.4), layout="constrained")
    for part, (name, case) in zip(np.atleast_1d(figure.subfigures(len(rows))), rows.items(), strict=True):
        part.suptitle(f"{name}: {case.patient}, slice {case.number}, volume Dice {case.volume_dice:.3f}", fontsize=11)
        for axes, (label, masks) in zip(part.subplots(1, len(columns)), columns.items(), strict=True):
            _show(axes, case, masks)
            axes.set_title(label, fontsize=9)
        _magnify(axes, case.ground_truth | case.prediction)
    handles = [Line2D([], [], color=COLOURS[name], label=name.replace("_", " ")) for name in both]
    figure.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False)
    figure.savefig(path, dpi=110)


def case_layers(slices: list[KeySlice], folder: Path) -> None:
    """Save the cases of `overlay_grid` as layers in `folder`, which is created.

    `<name>.png` is the FLAIR slice. `<name>_truth.png` and `<name>_prediction.png` are the mask contours on a
    transparent background, at four times the resolution. cases.json lists the cases, best first, with name, rank,
    patient, slice (counted from 1) and volume_dice.

    Raises:
      ValueError: no patient has a volume Dice.
    """
    ranked = _best_median_worst(slices)
    folder.mkdir(exist_ok=True)
    rows = []
    for rank, case in ranked.items():
        name = rank.replace(" ", "_")  # not the patient, whose name may have characters that a file name cannot have
        Image.fromarray(_grey(case.flair)).save(folder / f"{name}.png")
        for mask, suffix in CONTOUR_FILES.items():
            _contour_layer(case, mask, folder / f"{name}_{suffix}.png")
        rows.append({"name": name, "rank": rank, "patient": case.patient, "slice": case.number,
                     "volume_dice": case.volume_dice})  # fmt: skip
    write_json(folder / "cases.json", {"cases": rows})


def dice_distribution(cases: pd.DataFrame, path) -> None:
    """Save a PNG with one dot per patient, sorted by volume Dice, and the mean, its 95% CI and the median.

    Args:
      cases: columns `patient` and `volume_dice`, as in cases.csv. Patients with a NaN are excluded, and the title
        states their number.
    """
    scored = cases.dropna(subset="volume_dice").sort_values("volume_dice", kind="stable")
    numbers, rows = summary(scored["volume_dice"]), range(len(scored))
    figure = Figure(figsize=(5, 1.5 + 0.16 * len(scored)), layout="constrained")
    axes = figure.subplots()
    axes.hlines(rows, 0, scored["volume_dice"], color="0.85", linewidth=1)
    axes.plot(scored["volume_dice"], rows, "o", color="#0072B2", markersize=4)
    axes.set_yticks(rows, scored["patient"], fontsize=7)
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.8, max(len(scored), 1) - 0.2), xlabel="volume Dice")
    axes.tick_params(axis="x", labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(f"n = {numbers['n']} patients; {len(cases) - numbers['n']} excluded (both masks empty)", fontsize=9)
    if numbers["n"]:
        _mark_mean(axes, numbers)
        figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    figure.savefig(path, dpi=154)


def overlay_image(image: np.ndarray, ground_truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """FLAIR in grey with the contours of the ground truth (blue) and of the prediction (vermilion).

    Pixels that belong to both contours are yellow.

    Args:
      image: (height, width, channel), any intensities.
      ground_truth, prediction: (height, width) bool.

    Returns:
      (height, width, 3) uint8.
    """
    picture = np.repeat(_grey(image[..., FLAIR])[..., None], 3, axis=-1)
    first, second = surface(ground_truth), surface(prediction)
    for name, contour in (("ground_truth", first), ("prediction", second), ("both", first & second)):
        picture[contour] = np.round(np.multiply(to_rgb(COLOURS[name]), 255))
    return picture


def _best_median_worst(slices: list[KeySlice]) -> dict[str, KeySlice]:
    ranked = sorted((case for case in slices if not np.isnan(case.volume_dice)), key=lambda case: -case.volume_dice)
    if not ranked:
        raise ValueError("no patient has a volume Dice")
    names: dict[int, list[str]] = {}
    for name, index in (("best", 0), ("median", (len(ranked) - 1) // 2), ("worst", len(ranked) - 1)):
        names.setdefault(index, []).append(name)
    return {" and ".join(parts): ranked[index] for index, parts in names.items()}


def _mark_mean(axes: Axes, numbers: dict) -> None:
    colour = "#D55E00"
    axes.axvline(numbers["mean"], color=colour, linewidth=1.5, label=f"mean {numbers['mean']:.3f}")
    axes.axvline(numbers["median"], color=colour, linewidth=1.5, linestyle=":", label=f"median {numbers['median']:.3f}")
    if numbers["ci95"]:
        label = "95% CI of the mean {:.3f} to {:.3f}".format(*numbers["ci95"])
        axes.axvspan(*numbers["ci95"], color=colour, alpha=0.15, linewidth=0, label=label)


def _show(axes: Axes, case: KeySlice, masks: tuple[str, ...]) -> None:
    low, high = _window(case.flair)
    axes.imshow(case.flair, cmap="gray", vmin=low, vmax=high)
    axes.set_axis_off()
    for name in masks:
        _contour(axes, case, name)


def _contour(axes: Axes, case: KeySlice, name: str) -> None:
    mask = getattr(case, name)
    if mask.any():  # older versions of matplotlib warn if there is no contour
        # A border of zeros closes the contour of a mask that reaches the edge of the image.
        grid = [np.arange(-1, length + 1) for length in mask.shape]
        width = 2.2 if name == "ground_truth" else 1.1  # the wider line stays visible where the contours coincide
        padded = np.pad(mask, 1).astype(float)
        axes.contour(grid[1], grid[0], padded, levels=[0.5], colors=COLOURS[name], linewidths=width)


def _contour_layer(case: KeySlice, name: str, path) -> None:
    height, width = case.flair.shape
    figure = Figure(figsize=(width / 64, height / 64))
    axes = figure.add_axes((0, 0, 1, 1))
    _contour(axes, case, name)
    axes.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
    axes.set_axis_off()
    figure.savefig(path, dpi=256, transparent=True)


def _magnify(axes: Axes, mask: np.ndarray) -> None:
    """Limit the axes to a square around the mask, 1.5 times as wide as the mask, so that single pixels are visible."""
    places = np.argwhere(mask)
    side = min(max(32, 1.5 * np.ptp(places, axis=0).max()), *mask.shape)
    middle = (places.min(axis=0) + places.max(axis=0)) / 2
    top, left = np.clip(middle - side / 2, 0, np.array(mask.shape) - side) - 0.5  # imshow's pixels start at -0.5
    axes.set(xlim=(left, left + side), ylim=(top + side, top))


def _grey(plane: np.ndarray) -> np.ndarray:
    """Map a plane (height, width) of any intensities to uint8."""
    low, high = _window(plane)
    return (np.clip((plane - low) / (high - low), 0, 1) * 255).astype(np.uint8)


def _window(plane: np.ndarray) -> tuple[float, float]:
    """Intensities shown as black and as white.

    White is the 99.5th percentile. The brightest pixels (vessels, fat) would darken the rest of the image.
    """
    low, high = np.percentile(plane, [0, 99.5])
    return float(low), float(max(high, low + 1e-6))
