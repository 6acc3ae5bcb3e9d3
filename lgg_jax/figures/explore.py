"""Figures of the verb `explore`: counts, distributions, tumour positions, intensities and sample slices.

    bars(cases["institution"].value_counts(), "institution.png", "patients")
    boxes({"II": [31, 40], "III": [50]}, "age.png", "age in years")

Each figure is a small PNG with large letters, so that it is readable on a phone.
"""

from collections.abc import Iterable

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lgg_jax.figures.masks import COLOURS

# From the palette of Okabe and Ito, as in masks.py.
BLUE, VERMILION = "#0072B2", COLOURS["prediction"]
WIDTH, DPI = 4.2, 200


def bars(counts: pd.Series, path, label: str) -> None:
    """Save a bar chart with one bar per entry of `counts`, the first at the top."""
    figure, axes = _figure(0.9 + 0.3 * len(counts))
    names = [str(name) for name in counts.index]
    container = axes.barh(names, counts.to_numpy(), color=BLUE, height=0.7)
    axes.bar_label(container, padding=3, fontsize=9)
    axes.margins(x=0.12)
    axes.set(xlabel=label, xlim=(0, None if counts.any() else 1))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.invert_yaxis()
    figure.savefig(path, dpi=DPI)


def histogram(values, path, label: str, bins=12, share: bool = False) -> None:
    """Save a histogram of patients with the median as a vertical line. `share`: values are shown in per cent."""
    figure, axes = _figure(2.8)
    axes.hist(values, bins=bins, color=BLUE, edgecolor="white", linewidth=0.8)
    axes.axvline(np.median(values), color=VERMILION, linewidth=2)
    axes.set(xlabel=label, ylabel="number of patients")
    axes.yaxis.get_major_locator().set_params(integer=True)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10], integer=not share))
    axes.xaxis.set_major_formatter("{x:.0%}" if share else "{x:,.0f}")
    figure.savefig(path, dpi=DPI)


def boxes(groups: dict[str, Iterable[float]], path, label: str, share: bool = False) -> None:
    """Save a box plot (quartiles and median) with one dot per patient. The name of a group includes its size."""
    figure, axes = _figure(2.8)
    values = [np.asarray(list(group), float) for group in groups.values()]
    names = [f"{name}\nn = {len(group)}" for name, group in zip(groups, values, strict=True)]
    axes.boxplot(values, widths=0.5, showfliers=False, medianprops={"color": VERMILION, "linewidth": 2})
    axes.set_xticks(range(1, len(names) + 1), names)
    for place, group in enumerate(values, start=1):
        axes.plot(place + _jitter(len(group), 0.2), group, "o", color=BLUE, alpha=0.6, markersize=3.5)
    axes.set_ylabel(label)
    if share:
        axes.yaxis.set_major_formatter("{x:.0%}")
    figure.savefig(path, dpi=DPI)


def heat_map(tumour_map: np.ndarray, head_map: np.ndarray, centroids: np.ndarray, path) -> None:
    """Save a heat map of the share of patients with tumour at each position.

    A dot marks the centroid of each tumour. A contour encloses the positions that are in the head in most patients.

    Args:
      tumour_map, head_map: (height, width), shares of patients in [0, 1].
      centroids: (patient, 2), row and column as shares of the sides of the maps; NaN without tumour.
    """
    figure, axes = _figure(3.7)
    height, width = tumour_map.shape
    picture = axes.imshow(tumour_map, cmap="cividis", vmin=0, extent=(0, width, height, 0))
    if head_map.max() > 0.5 > head_map.min():
        grid = np.arange(width) + 0.5, np.arange(height) + 0.5
        axes.contour(*grid, head_map, levels=[0.5], colors="white", linewidths=1.2)
    rows, columns = (centroids * [height, width]).T
    axes.plot(columns, rows, "o", color="white", markeredgecolor="black", markersize=3, markeredgewidth=0.6)
    axes.set_axis_off()
    figure.colorbar(picture, ax=axes, format="{x:.0%}", shrink=0.85, label="patients with tumour at this position")
    figure.savefig(path, dpi=DPI)


def intensities(table: pd.DataFrame, path) -> None:
    """Save the intensities of each sequence by institution.

    A dot is the median of one patient. The line is the median of the dots. The bar extends from the median of the lower
    quartiles to the median of the upper quartiles.

    Args:
      table: `Survey.intensities`.
    """
    places = {name: place for place, name in enumerate(sorted(table["institution"].unique()))}
    sequences = list(table["sequence"].unique())
    figure = Figure(figsize=(WIDTH, 0.6 + 1.8 * len(sequences)), layout="constrained")
    for axes, sequence in zip(figure.subplots(len(sequences), sharex=True, squeeze=False).flat, sequences, strict=True):
        for name, rows in table[table["sequence"] == sequence].groupby("institution"):
            _typical(axes, places[name], rows)
        axes.set_title(sequence, fontsize=10)
        axes.set_xticks(list(places.values()), list(places))
        axes.spines[["top", "right"]].set_visible(False)
    figure.supylabel("stored intensity", fontsize=10)
    figure.savefig(path, dpi=DPI)


def _typical(axes: Axes, place: int, rows: pd.DataFrame) -> None:
    low, median, high = rows[["low", "median", "high"]].median()
    axes.bar(place, high - low, bottom=low, width=0.6, color=BLUE, alpha=0.25)
    axes.plot(place + _jitter(len(rows), 0.2), rows["median"], "o", color=BLUE, alpha=0.7, markersize=3.5)
    axes.hlines(median, place - 0.3, place + 0.3, color=VERMILION, linewidth=2)


def sample_grid(samples: dict[str, tuple[np.ndarray, np.ndarray]], path, columns: int = 4) -> None:
    """Save a grid of slices with the contours of their masks; `samples` is {title: (image, mask)}."""
    rows = -(-len(samples) // columns)
    figure = Figure(figsize=(1.6 * columns, 1.95 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid:
        axes.set_axis_off()
    size = min(12, 180 / max(map(len, samples)))  # points; long titles must not overlap
    for axes, (title, (image, mask)) in zip(grid, samples.items(), strict=False):  # the last row may be incomplete
        show_with_contour(axes, image, mask, np.percentile(image, [0, 99.5]))
        axes.set_title(title, fontsize=size)
    figure.savefig(path, dpi=DPI)


def show_with_contour(axes: Axes, image: np.ndarray, mask: np.ndarray, window) -> None:
    """Show an image (height, width) with the contour of its mask; `window` is the intensities of black and of white."""
    axes.imshow(image, cmap="gray", vmin=window[0], vmax=window[1])
    axes.set_axis_off()
    if mask.max() > 0.5 > mask.min():
        axes.contour(mask, levels=[0.5], colors=COLOURS["ground_truth"], linewidths=1.3)


def whole_bins(values, count: int = 12) -> np.ndarray:
    """Edges of about `count` bins that all contain the same number of integers."""
    low, high = int(np.min(values)), int(np.max(values))
    width = max(1, -(-(high - low + 1) // count))
    return np.arange(low, high + width + 1, width) - 0.5


def _figure(height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _jitter(count: int, width: float) -> np.ndarray:
    """Random offsets that separate overlapping dots, the same in every run."""
    return np.random.default_rng(0).uniform(-width, width, count)
