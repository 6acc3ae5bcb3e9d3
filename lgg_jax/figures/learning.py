"""Learning curves of several runs; each figure shows one logged value.

    learning_curve({"before": log, "after": other}, "train/loss", {"before": 1160}, "training loss", "loss.png")
"""

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

# From the palette of Okabe and Ito, as in masks.py. The line style differs between runs as well.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
DASHES = ("-", "--", "-.", ":")
FEW = 30  # with more points, markers would hide the line


def learning_curve(logs: dict[str, pd.DataFrame], value: str, chosen: dict[str, int], label: str, path) -> None:
    """Save a PNG with one value by training step and one line per run.

    Args:
      logs: {run: table with the columns `step` and `value`}.
      value: a name of metrics.jsonl.
      chosen: {run: step of its selected checkpoint}, marked by a dotted vertical line.
      label: the title.
    """
    figure = Figure(figsize=(4.2, 3.1), layout="constrained")
    axes = figure.subplots()
    lines = []
    for index, (run, log) in enumerate(logs.items()):
        points = log[["step", value]].dropna()
        colour, dash = COLOURS[index % len(COLOURS)], DASHES[index % len(DASHES)]
        marker = "o" if len(points) <= FEW else ""
        lines += axes.plot(points["step"], points[value], dash, marker=marker, markersize=4, color=colour)
        if run in chosen:
            axes.axvline(chosen[run], color=colour, linewidth=1, linestyle=":")
    axes.set_title(label, fontsize=10)
    axes.set_xlabel("training step")
    axes.set_xlim(left=0)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10], integer=True))
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="0.92")
    # The names are passed to the legend: matplotlib omits a line whose label begins with an underscore.
    figure.legend(lines, list(logs), loc="outside lower center", frameon=False, fontsize=9)
    figure.savefig(path, dpi=200)
