"""The learning curves of several runs, a picture a value.

    learning_curve({"before": log, "after": other}, "train/loss", {"before": 1160}, "training loss", "loss.png")
"""

import pandas as pd
from matplotlib.figure import Figure

# From the palette of Okabe and Ito, as in masks.py; each run has a dash of its own as well.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
DASHES = ("-", "--", "-.", ":")


def learning_curve(logs: dict[str, pd.DataFrame], value: str, chosen: dict[str, int], label: str, path) -> None:
    """A PNG with one value by step, a line a run.

    Args:
      logs: run → columns `step` and `value`.
      value: a name of metrics.jsonl.
      chosen: run → the step whose weights it keeps, which a vertical line marks.
      label: what the value is, in words.
    """
    figure = Figure(figsize=(5.4, 3.8), layout="constrained")
    axes = figure.subplots()
    lines = []
    for index, (run, log) in enumerate(logs.items()):
        points = log[["step", value]].dropna()
        colour, dash = COLOURS[index % len(COLOURS)], DASHES[index % len(DASHES)]
        marker = "o" if value.startswith("validation/") else ""  # a training loss has too many points for one
        lines += axes.plot(points["step"], points[value], dash, marker=marker, markersize=4, color=colour)
        if run in chosen:
            axes.axvline(chosen[run], color=colour, linewidth=1, linestyle=":")
    axes.set_title(label, fontsize=10)
    axes.set_xlabel("step")
    axes.set_xlim(left=0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="0.92")
    # Named here: a label that a plot is given is left out where it begins with an underscore.
    figure.legend(lines, list(logs), loc="outside lower center", frameon=False, fontsize=9)
    figure.savefig(path, dpi=110)
