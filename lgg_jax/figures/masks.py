"""Pictures of masks and scores, and nothing of matplotlib's global state.

    slices = [key_slice(patient, volume_dice, image, truth, prediction) for …]    # one slice a patient is kept
    overlay_grid(slices, "overlays.png")                                          # best, median and worst
    case_layers(slices, "cases")                                                  # the same, picture and outlines apart
    dice_distribution(cases, "dice.png")                                          # the rows of cases.csv
    overlay_image(image, truth, prediction)                                       # an array, for TensorBoard
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

# From the palette of Okabe and Ito, told apart by every common form of colour vision, and not found in a grey image.
COLOURS = {"truth": "#56B4E9", "prediction": "#D55E00", "both": "#F0E442"}


@dataclasses.dataclass(frozen=True)
class KeySlice:
    """The one slice that stands for a patient; `flair`, `truth` and `prediction` are (height, width)."""

    patient: str
    volume_dice: float
    number: int  # counted from 1
    flair: np.ndarray
    truth: np.ndarray
    prediction: np.ndarray


def key_slice(patient: str, volume_dice: float, image, truth, prediction) -> KeySlice:
    """The slice with most tumour; without any tumour the one with most prediction, else the first.

    Args:
      image: (slice, height, width, channel).
      truth, prediction: (slice, height, width) bool.
    """
    shown = truth if truth.any() else prediction
    index = int(shown.sum(axis=(1, 2)).argmax())
    planes = (np.array(volume[index]) for volume in (image[..., FLAIR], truth, prediction))  # copies free the volume
    return KeySlice(patient, volume_dice, index + 1, *planes)


def overlay_grid(slices: list[KeySlice], path) -> None:
    """A PNG with a row each for the best, median and worst volume Dice; patients without one (NaN) are left out.

    Raises:
      ValueError: no patient has a volume Dice.
    """
    rows = _best_median_worst(slices)
    both = ("truth", "prediction")
    columns = {"FLAIR": (), "truth": both[:1], "prediction": both[1:], "both, enlarged": both}
    figure = Figure(figsize=(11, 3 * len(rows) + 0.4), layout="constrained")
    for part, (name, case) in zip(np.atleast_1d(figure.subfigures(len(rows))), rows.items(), strict=True):
        part.suptitle(f"{name}: {case.patient}, slice {case.number}, volume Dice {case.volume_dice:.3f}", fontsize=11)
        for axes, (label, masks) in zip(part.subplots(1, len(columns)), columns.items(), strict=True):
            _draw(axes, case, masks)
            axes.set_title(label, fontsize=9)
        _enlarge(axes, case.truth | case.prediction)
    handles = [Line2D([], [], color=COLOURS[name], label=name) for name in both]
    figure.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False)
    figure.savefig(path, dpi=110)


def case_layers(slices: list[KeySlice], folder: Path) -> None:
    """The cases of `overlay_grid` as layers, into a folder that is made.

    A case is `<name>.png`, FLAIR, with its outlines in `<name>_truth.png` and `<name>_prediction.png`, transparent and
    four times as fine; cases.json lists them, best first: name, rank, patient, slice (from 1) and volume_dice.

    Raises:
      ValueError: no patient has a volume Dice.
    """
    ranked = _best_median_worst(slices)
    folder.mkdir(exist_ok=True)
    rows = []
    for rank, case in ranked.items():
        name = rank.replace(" ", "_")  # a patient's name may hold what a file's may not
        Image.fromarray(_grey(case.flair)).save(folder / f"{name}.png")
        for mask in ("truth", "prediction"):
            _outline_layer(case, mask, folder / f"{name}_{mask}.png")
        rows.append({"name": name, "rank": rank, "patient": case.patient, "slice": case.number,
                     "volume_dice": case.volume_dice})  # fmt: skip
    write_json(folder / "cases.json", {"cases": rows})


def dice_distribution(cases: pd.DataFrame, path) -> None:
    """A PNG with a dot per patient, sorted by volume Dice, with the mean and its 95 % interval.

    Args:
      cases: columns `patient` and `volume_dice`, as in cases.csv; patients without a Dice (NaN) are left out, and
        the title says how many.
    """
    scored = cases.dropna(subset="volume_dice").sort_values("volume_dice", kind="stable")
    numbers, dots = summary(scored["volume_dice"]), range(len(scored))
    figure = Figure(figsize=(7, 1.6 + 0.19 * len(scored)), layout="constrained")
    axes = figure.subplots()
    axes.hlines(dots, 0, scored["volume_dice"], color="0.85", linewidth=1)
    axes.plot(scored["volume_dice"], dots, "o", color="#0072B2", markersize=5)
    axes.set_yticks(dots, scored["patient"], fontsize=8)
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.8, max(len(scored), 1) - 0.2), xlabel="volume Dice")
    axes.spines[["top", "right"]].set_visible(False)
    title = f"{numbers['n']} patients, {len(cases) - numbers['n']} excluded (both masks empty)"
    if numbers["n"]:
        axes.axvline(numbers["mean"], color="#D55E00", linewidth=1.5)
        axes.axvline(numbers["median"], color="#D55E00", linewidth=1.5, linestyle=":")
        title += f"\nmean {numbers['mean']:.3f} (line), median {numbers['median']:.3f} (dotted)"
    if numbers["ci95"]:
        axes.axvspan(*numbers["ci95"], color="#D55E00", alpha=0.15, linewidth=0)
        title += ", 95 % interval of the mean {:.3f} to {:.3f} (band)".format(*numbers["ci95"])
    axes.set_title(title, fontsize=9)
    figure.savefig(path, dpi=110)


def overlay_image(image: np.ndarray, truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """FLAIR in grey with the outline of the truth (blue), of the prediction (vermilion), and yellow where they meet.

    Args:
      image: (height, width, channel), any intensities.
      truth, prediction: (height, width) bool.

    Returns:
      (height, width, 3) uint8.
    """
    picture = np.repeat(_grey(image[..., FLAIR])[..., None], 3, axis=-1)
    first, second = surface(truth), surface(prediction)
    for name, outline in (("truth", first), ("prediction", second), ("both", first & second)):
        picture[outline] = np.round(np.multiply(to_rgb(COLOURS[name]), 255))
    return picture


def _best_median_worst(slices: list[KeySlice]) -> dict[str, KeySlice]:
    ranked = sorted((case for case in slices if not np.isnan(case.volume_dice)), key=lambda case: -case.volume_dice)
    if not ranked:
        raise ValueError("no patient has a volume Dice")
    names: dict[int, list[str]] = {}
    for name, index in (("best", 0), ("median", (len(ranked) - 1) // 2), ("worst", len(ranked) - 1)):
        names.setdefault(index, []).append(name)
    return {" and ".join(parts): ranked[index] for index, parts in names.items()}


def _draw(axes: Axes, case: KeySlice, masks: tuple[str, ...]) -> None:
    low, high = _window(case.flair)
    axes.imshow(case.flair, cmap="gray", vmin=low, vmax=high)
    axes.set_axis_off()
    for name in masks:
        _outline(axes, case, name)


def _outline(axes: Axes, case: KeySlice, name: str) -> None:
    mask = getattr(case, name)
    if mask.any():  # older matplotlib warns of an outline that it can't find
        # A ring of zeros closes the outline of a mask that reaches the border.
        grid = [np.arange(-1, length + 1) for length in mask.shape]
        width = 2.2 if name == "truth" else 1.1  # the truth shows on both sides of a prediction that hits it
        padded = np.pad(mask, 1).astype(float)
        axes.contour(grid[1], grid[0], padded, levels=[0.5], colors=COLOURS[name], linewidths=width)


def _outline_layer(case: KeySlice, name: str, path) -> None:
    height, width = case.flair.shape
    figure = Figure(figsize=(width / 64, height / 64))
    axes = figure.add_axes((0, 0, 1, 1))
    _outline(axes, case, name)
    axes.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
    axes.set_axis_off()
    figure.savefig(path, dpi=256, transparent=True)


def _enlarge(axes: Axes, mask: np.ndarray) -> None:
    """Show a square around the mask, half as wide again, so that a pixel of disagreement can be seen."""
    places = np.argwhere(mask)
    side = min(max(32, 1.5 * np.ptp(places, axis=0).max()), *mask.shape)
    middle = (places.min(axis=0) + places.max(axis=0)) / 2
    top, left = np.clip(middle - side / 2, 0, np.array(mask.shape) - side) - 0.5  # imshow's pixels start at -0.5
    axes.set(xlim=(left, left + side), ylim=(top + side, top))


def _grey(plane: np.ndarray) -> np.ndarray:
    """(height, width) of any intensities → uint8."""
    low, high = _window(plane)
    return (np.clip((plane - low) / (high - low), 0, 1) * 255).astype(np.uint8)


def _window(plane: np.ndarray) -> tuple[float, float]:
    """Black and white of the display: the brightest 0.5 % (vessels, fat) must not darken the rest."""
    low, high = np.percentile(plane, [0, 99.5])
    return float(low), float(max(high, low + 1e-6))
