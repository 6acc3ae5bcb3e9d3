"""The page of `report`: results side by side, how the runs learnt, what they were given, and what they are for.

    Path("report.html").write_text(compose(runs, defaults, Path("figures")), encoding="utf-8")
"""

import re
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
from markupsafe import Markup

from lgg_jax.data import splits as splits_lib
from lgg_jax.figures.learning import learning_curve
from lgg_jax.pages import results
from lgg_jax.pages.html import cards, facts, fill, page, paragraph, picture, table
from lgg_jax.pages.runs import KINDS
from lgg_jax.workdir import evaluate_command

CURVES = {
    "train/loss": "training loss",
    "validation/volume_dice": "volume Dice, mean of validation patients",
    "validation/volume_dice_min": "volume Dice, lowest of validation patients",
    "validation/loss": "cross-entropy on validation",
    "validation/auc": "AUC on validation",
}
STARTING_REPORT = "the report this project started from: {} (split, patients and kind not stated)"
OUTPUTS = {
    "segmentation": "the outline of the tumour",
    "joint": "the outline of the tumour, and whether its grade is III rather than II",
    "grade": "whether the tumour's grade is III rather than II",
    "presence": "whether a slice shows tumour",
}
# Patients' identifiers → whose data they may be, and what to cite.
SOURCES = {
    r"TCGA_\w\w_\w{4}": (
        "Identifiers are those of TCGA-LGG. If these are the LGG MRI segmentation data, cite Buda et al. 2019 "
        "(doi:10.1016/j.compbiomed.2019.05.002) and Mazurowski et al. 2017 (doi:10.1007/s11060-017-2420-1), and for "
        "the scans Pedano et al. 2016 (doi:10.7937/K9/TCIA.2016.L4LTD3TK). Phantoms of `synthesize` are named alike."
    ),
    r"BraTS.*": (
        "Identifiers are those of BraTS: cite Menze et al. 2015 (doi:10.1109/TMI.2014.2377694) and Bakas et al. 2017 "
        "(doi:10.1038/sdata.2017.117)."
    ),
}


def compose(runs: list, defaults: dict, folder: Path) -> str:
    """The HTML of the page; the learning curves are written to `folder` on the way.

    Args:
      runs: `runs.Run`, in the order of the columns.
      defaults: field → value of configs/default.py.
      folder: exists.
    """
    sections = {"Headline numbers": headline(runs), "Learning curves": curves(runs, folder)}
    for run in runs:
        sections |= {f"{run.name}, {one.name}": results.evaluation(run, one) for one in run.evaluations}
    sections |= {"Configuration": configuration(runs, defaults), "Data and versions": versions(runs),
                 "Model card": model_card(runs)}  # fmt: skip
    names = ", ".join(run.name for run in runs)
    lead = "How well it works on whom, how it was trained, and what it is for. Research only: not a medical device."
    return page(f"Report: {names}", lead, sections)


def headline(runs: list) -> list[Markup]:
    """The commands for results that are missing, and the tables of all evaluations side by side."""
    evaluated = {f"{run.name}, {one.name}": (run, one) for run in runs for one in run.evaluations}
    tiles = {f"{name}: {label}": value for name, (_, one) in evaluated.items() for label, value in results.tiles(one)}
    parts = [*(paragraph(text) for run in runs for text in missing(run)), facts(tiles)]
    for kind in KINDS:
        found = {name: one.results()[kind] for name, (_, one) in evaluated.items() if kind in one.results()}
        if found:
            parts.append(results.headline(found, kind, stated(found, evaluated)))
    tuned = [run for run in runs if run.config.get("init_from")]
    return parts + [paragraph(f"{run.name} went on from the best weights of {run.config['init_from']}.")
                    for run in tuned]  # fmt: skip


def stated(found: dict, evaluated: dict) -> dict[str, list[str]]:
    """Rows with what the starting report states, under the runs that follow its protocol; none if there is no such."""
    columns = [evaluated[name][0].published for name in found]
    measures = dict.fromkeys(measure for column in columns for measure in column)
    return {
        STARTING_REPORT.format(measure): [f"{column[measure]:.4f}" if measure in column else "–" for column in columns]
        for measure in measures
    }


def missing(run) -> Iterator[str]:
    """What the workdir does not hold, and the command that makes it."""
    if run.chosen is None:
        yield f"{run.name}: the training has not ended. Give its command again to go on with it."
    elif not run.evaluations:
        yield f"{run.name} has not been evaluated yet: {evaluate_command(run.workdir, run.splits)}"


def curves(runs: list, folder: Path) -> list[Markup]:
    """The learning curves, and which runs have no log."""
    parts = [paragraph(f"{run.name} has no logs/metrics.jsonl.") for run in runs if run.log.empty]
    drawn = pictures(runs, folder)
    if drawn:
        steps = ", ".join(f"step {run.chosen['step']:,} ({run.name})" for run in runs if run.chosen)
        text = (f"The dotted upright line is the step whose weights are kept, the best on validation: {steps}."
                if steps else "No step has been chosen yet.")  # fmt: skip
        parts += [paragraph(text), cards(*drawn)]
    return parts


def pictures(runs: list, folder: Path) -> list[Markup]:
    """One plot for each logged value and task: the losses of two tasks do not compare."""
    drawn = []
    for kind in dict.fromkeys(run.config["task"] for run in runs):
        alike = [run for run in runs if run.config["task"] == kind]
        steps = {run.name: run.chosen["step"] for run in alike if run.chosen}
        for value, label in CURVES.items():
            logs = {run.name: run.log for run in alike if value in run.log}
            if logs:
                path = folder / f"{kind}_{value.replace('/', '_')}.png"
                learning_curve(logs, value, steps, label, path)
                drawn.append(picture(path, f"{label[0].upper()}{label[1:]}, by step."))
    return drawn


def configuration(runs: list, defaults: dict) -> list[Markup]:
    """All fields; those in which a run differs from the defaults come first."""
    fields = dict.fromkeys(key for run in runs for key in run.config)
    changed = [key for key in fields
               if any(key in run.config and run.config[key] != defaults.get(key) for run in runs)]  # fmt: skip
    same = [key for key in fields if key not in changed]
    return [
        table(_fields(changed, runs, defaults),
              f"Fields in which a run differs from configs/default.py ({len(changed)})", sortable=False),
        table(_fields(same, runs, defaults), f"All other fields ({len(same)})"),
    ]  # fmt: skip


def _fields(keys: list[str], runs: list, defaults: dict) -> pd.DataFrame:
    frame = pd.DataFrame({"config field": keys})
    for run in runs:
        frame[run.name] = [_shown(run.config.get(key)) for key in keys]
    frame["configs/default.py"] = [_shown(defaults.get(key)) for key in keys]
    return frame


def _shown(value) -> str:
    """A dash for a field that an older or newer version does not have."""
    if isinstance(value, list):
        return ", ".join(map(_shown, value))
    return "–" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def versions(runs: list) -> list[Markup]:
    """What each run was trained on, and the versions of the code that it recorded."""
    names = {name: None for run in runs for name in run.versions or {}}
    frame = pd.DataFrame({"": ["data folder", *(f"patients: {name}" for name in splits_lib.SETS), "split by", *names]})
    for run in runs:
        counts = (f"{len(splits_lib.members(run.splits, name)):,}" for name in splits_lib.SETS)
        recorded = run.versions or {}
        code = (recorded.get(name, "not recorded") for name in names)
        frame[run.name] = [str(run.config.get("data.dir")), *counts, run.splits["by"], *code]
    parts = [table(frame, "What the runs were given, and what they began with", sortable=False)]
    bare = [run.name for run in runs if run.versions is None]
    if bare:
        parts.append(paragraph(f"Versions of the code: not recorded by {', '.join(bare)}."))
    return parts


def model_card(runs: list) -> list[Markup]:
    """Intended use, inputs, outputs, training data and limits."""
    told = dict.fromkeys(text for run in runs for text in about(run))  # what holds for several runs is said once
    return [fill("model_card.html", about=told)]


def about(run) -> Iterator[str]:
    """What a run gives, and what it was trained on."""
    kind = run.config["data.target"] if run.config["task"] == "classification" else run.config["task"]
    patients = {name: list(splits_lib.members(run.splits, name)) for name in splits_lib.SETS}
    counts = [len(patients[name]) for name in splits_lib.SETS]
    by = "" if run.splits["by"] == "patient" else ", slice by slice, so that a patient may be in all three sets"
    yield (f"{run.name} gives {OUTPUTS[kind]}. Training data: {run.config.get('data.dir')}, {counts[0]:,} patients to "
           f"train, {counts[1]:,} to validate, {counts[2]:,} to test{by}.")  # fmt: skip
    for pattern, text in SOURCES.items():
        if all(re.fullmatch(pattern, patient) for patient in patients["train"]):
            yield text
            return
    yield "Whose data these are cannot be told from the patients' identifiers: cite their own source."
