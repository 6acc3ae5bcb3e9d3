"""Page of the verb `report`: scores, learning curves, configuration, data and model card of one or more runs.

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
    "validation/volume_dice": "mean volume Dice of the validation patients",
    "validation/volume_dice_min": "lowest volume Dice of the validation patients",
    "validation/loss": "validation loss (cross-entropy)",
    "validation/auc": "validation AUC",
}
STARTING_REPORT = "report this project started from: {} (split, patients and definition not stated)"
OUTPUTS = {
    "segmentation": "a mask of the tumour",
    "joint": "a mask of the tumour, and whether its grade is III rather than II",
    "grade": "whether the grade of the tumour is III rather than II",
    "presence": "whether a slice contains tumour",
}
# Pattern of the patients' identifiers → the likely source of the data and its citations.
SOURCES = {
    r"TCGA_\w\w_\w{4}": (
        "The patients' identifiers are those of TCGA-LGG. If this is the LGG MRI segmentation data set, cite Buda et "
        "al. 2019 (doi:10.1016/j.compbiomed.2019.05.002) and Mazurowski et al. 2017 "
        "(doi:10.1007/s11060-017-2420-1). For the scans, cite Pedano et al. 2016 (doi:10.7937/K9/TCIA.2016.L4LTD3TK). "
        "Phantoms written by `synthesize` have similar identifiers."
    ),
    r"BraTS.*": (
        "The patients' identifiers are those of BraTS. Cite Menze et al. 2015 (doi:10.1109/TMI.2014.2377694) and "
        "Bakas et al. 2017 (doi:10.1038/sdata.2017.117)."
    ),
}


def compose(runs: list, defaults: dict, folder: Path) -> str:
    """Compose the HTML of the page and write the learning curves to `folder`.

    Args:
      runs: `runs.Run`, in the order of the columns.
      defaults: {field: value} of configs/default.py.
      folder: an existing folder.
    """
    sections = {"Scores": scores(runs), "Learning curves": curves(runs, folder)}
    for run in runs:
        sections |= {f"{run.name}, {one.name}": results.evaluation(run, one) for one in run.evaluations}
    sections |= {"Configuration": configuration(runs, defaults), "Data and versions": versions(runs),
                 "Model card": model_card(runs)}  # fmt: skip
    names = ", ".join(run.name for run in runs)
    lead = "Scores, training, configuration and intended use of the runs. For research only: not a medical device."
    return page(f"Report: {names}", lead, sections)


def scores(runs: list) -> list[Markup]:
    """Tables with the scores of all evaluations side by side, and the commands that produce missing results."""
    evaluated = {f"{run.name}, {one.name}": (run, one) for run in runs for one in run.evaluations}
    tiles = {f"{name}: {label}": value for name, (_, one) in evaluated.items() for label, value in results.tiles(one)}
    parts = [*(paragraph(text) for run in runs for text in missing(run)), facts(tiles)]
    for kind in KINDS:
        shown = {name: one.results()[kind] for name, (_, one) in evaluated.items() if kind in one.results()}
        if shown:
            parts.append(results.scores(shown, kind, published(shown, evaluated)))
    tuned = [run for run in runs if run.config.get("init_from")]
    return parts + [paragraph(f"{run.name} was initialised with the best weights of {run.config['init_from']}.")
                    for run in tuned]  # fmt: skip


def published(shown: dict, evaluated: dict) -> dict[str, list[str]]:
    """Rows with the scores that the starting report states for the protocols of the runs; empty if there are none."""
    columns = [evaluated[name][0].published for name in shown]
    measures = dict.fromkeys(measure for column in columns for measure in column)
    return {
        STARTING_REPORT.format(measure): [f"{column[measure]:.4f}" if measure in column else "–" for column in columns]
        for measure in measures
    }


def missing(run) -> Iterator[str]:
    """Sentences about results that the workdir does not have, with the commands that produce them."""
    if run.chosen is None:
        yield f"{run.name}: the training has not finished. Run its command again to resume it."
    elif not run.evaluations:
        yield f"{run.name} has not been evaluated yet: {evaluate_command(run.workdir, run.splits)}"


def curves(runs: list, folder: Path) -> list[Markup]:
    """The learning curves, and the names of runs without a log."""
    parts = [paragraph(f"{run.name} has no logs/metrics.jsonl.") for run in runs if run.log.empty]
    plots = pictures(runs, folder)
    if plots:
        steps = ", ".join(f"step {run.chosen['step']:,} ({run.name})" for run in runs if run.chosen)
        text = (f"Dotted vertical lines mark the selected checkpoints, the best ones on the validation set: {steps}."
                if steps else "No checkpoint has been selected yet.")  # fmt: skip
        parts += [paragraph(text), cards(*plots)]
    return parts


def pictures(runs: list, folder: Path) -> list[Markup]:
    """One figure per logged value and task, because the losses of different tasks are not comparable."""
    plots = []
    for kind in dict.fromkeys(run.config["task"] for run in runs):
        same_task = [run for run in runs if run.config["task"] == kind]
        steps = {run.name: run.chosen["step"] for run in same_task if run.chosen}
        for value, label in CURVES.items():
            logs = {run.name: run.log for run in same_task if value in run.log}
            if logs:
                path = folder / f"{kind}_{value.replace('/', '_')}.png"
                learning_curve(logs, value, steps, label, path)
                plots.append(picture(path, f"{label[0].upper()}{label[1:]} by training step."))
    return plots


def configuration(runs: list, defaults: dict) -> list[Markup]:
    """Tables of the config fields: those in which a run differs from the defaults, and all others."""
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
    """The text of a value; a dash for a field that the run's version of lgg_jax does not have."""
    if isinstance(value, list):
        return ", ".join(map(_shown, value))
    return "–" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def versions(runs: list) -> list[Markup]:
    """The training data of each run and the software versions that it recorded."""
    names = {name: None for run in runs for name in run.versions or {}}
    frame = pd.DataFrame({"": ["data folder", *(f"patients: {name}" for name in splits_lib.SETS), "split by", *names]})
    for run in runs:
        counts = (f"{len(splits_lib.members(run.splits, name)):,}" for name in splits_lib.SETS)
        recorded = run.versions or {}
        code = (recorded.get(name, "not recorded") for name in names)
        frame[run.name] = [str(run.config.get("data.dir")), *counts, run.splits["by"], *code]
    parts = [table(frame, "Data of the runs and software versions at their start", sortable=False)]
    unrecorded = [run.name for run in runs if run.versions is None]
    if unrecorded:
        parts.append(paragraph(f"Software versions were not recorded by: {', '.join(unrecorded)}."))
    return parts


def model_card(runs: list) -> list[Markup]:
    """Intended use, inputs, outputs, training data and limitations."""
    texts = dict.fromkeys(text for run in runs for text in about(run))  # without the repetitions of several runs
    return [fill("model_card.html", about=texts)]


def about(run) -> Iterator[str]:
    """Sentences about the outputs and the training data of a run."""
    kind = run.config["data.target"] if run.config["task"] == "classification" else run.config["task"]
    patients = {name: list(splits_lib.members(run.splits, name)) for name in splits_lib.SETS}
    counts = [len(patients[name]) for name in splits_lib.SETS]
    leak = "" if run.splits["by"] == "patient" else " The split is by slice, so a patient may be in all three sets."
    yield (f"{run.name} predicts {OUTPUTS[kind]}. Data: {run.config.get('data.dir')}. Patients: {counts[0]:,} in the "
           f"training set, {counts[1]:,} in the validation set, {counts[2]:,} in the test set.{leak}")  # fmt: skip
    for pattern, text in SOURCES.items():
        if all(re.fullmatch(pattern, patient) for patient in patients["train"]):
            yield text
            return
    yield "The patients' identifiers do not identify the data set. Cite its source."
