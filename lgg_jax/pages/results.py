"""The results of evaluations on the page of `report`: a table of them side by side, and the sections of each.

    headline({"before, test": metrics, "after, test": other}, "segmentation")
    evaluation(run, run.evaluations[0])

Numbers are those of metrics.json and cases.csv, rounded; nothing is computed here.
"""

from collections.abc import Iterator
from functools import reduce

import pandas as pd
from markupsafe import Markup

from lgg_jax.figures.masks import COLOURS, CONTOUR_FILES
from lgg_jax.pages.html import cards, layers, paragraph, picture, table

# Label → place in metrics.json and format. Beside a mean stand its "ci95" and "n", beside another value <name>_ci95.
SEGMENTATION = {
    "volume Dice, mean": ("volume_dice.mean", ".3f"),
    "– if nothing were called tumour": ("baselines.all_background.volume_dice", ".3f"),
    "volume Dice, median": ("volume_dice.median", ".3f"),
    "patients left out: no tumour, drawn or predicted": ("both_empty", ",d"),
    "volume IoU, mean": ("volume_iou.mean", ".3f"),
    "sensitivity, mean": ("sensitivity.mean", ".3f"),
    "precision, mean": ("precision.mean", ".3f"),
    "HD95 in pixels, mean": ("hd95_px.mean", ".1f"),
    "HD95 in pixels, median": ("hd95_px.median", ".1f"),
    "– patients of these with one mask empty": ("hd95_one_empty", ",d"),
    "slice Dice, slices with tumour": ("slice_dice_tumour.mean", ".3f"),
    "slice Dice, all slices": ("slice_dice_all.mean", ".3f"),
    "– if nothing were called tumour, all slices": ("all_background_slice_dice", ".3f"),
}
LEVEL = {
    "AUC": ("auc", ".3f"),
    "accuracy": ("accuracy", ".3f"),
    "– of always saying the commoner": ("majority_accuracy", ".3f"),
    "F1": ("f1", ".3f"),
    "sensitivity": ("sensitivity", ".3f"),
    "specificity": ("specificity", ".3f"),
    "Brier score": ("brier", ".3f"),
    "calibration error": ("ece", ".3f"),
    "positives": ("n_positive", ",d"),
}
BASELINE = {"AUC": "auc", "accuracy": "accuracy", "Brier score": "brier"}
FIGURES = {
    "dice.png": "Volume Dice of each patient, sorted.",
    "roc.png": "ROC curve. The band holds 95 % of the curves of resampled patients, point by point.",
    "precision_recall.png": "Precision over recall, with the band of resampled patients.",
    "reliability.png": "Calibration: of slices or patients given a probability, the share that was positive. "
    "On the diagonal the probabilities mean what they say.",
    "confusion.png": "Right and wrong answers at the threshold.",
}  # fmt: skip
GROUPS = {"missing_sequences": "sequences", "tumour_size": "tumour size"}
# In cases.csv, for others to compute with; the IoU of one patient follows from the Dice.
UNSHOWN = ("slice_dice_all_sum", "slice_dice_tumour_sum", "volume_iou", "logit")


def headline(results: dict[str, dict], kind: str, stated: dict[str, list[str]]) -> Markup:
    """Measures in rows, evaluations in columns.

    Args:
      results: name of the column → the numbers of that kind.
      stated: more rows, label → a text for each column.
    """
    rows = _rows(results, kind)
    frame = pd.DataFrame({"measure": [*rows, *stated]})
    for index, (name, metrics) in enumerate(results.items()):
        numbers = [estimate(metrics, *row) for row in rows.values()]
        frame[name] = numbers + [texts[index] for texts in stated.values()]
    text = "In brackets the 95 % interval: patients resampled; of a patients' AUC DeLong's. n: patients or slices."
    return table(frame, f"{kind.capitalize()}. {text}", sortable=False)


def _rows(results: dict[str, dict], kind: str) -> dict[str, tuple[str, str]]:
    if kind == "segmentation":
        return SEGMENTATION
    rows = {f"{label}, per {level}": (f"{level}.{key}", spec)
            for level in ("patient", "slice") for label, (key, spec) in LEVEL.items()}  # fmt: skip
    baselines = {name: None for metrics in results.values() for name in metrics.get("baselines", {})}
    return rows | {f"{label}, per patient, of {name} alone": (f"baselines.{name}.{key}", ".3f")
                   for name in baselines if name != "majority" for label, key in BASELINE.items()}  # fmt: skip


def find(metrics: dict, place: str):
    """`find({"a": {"b": 1}}, "a.b")` is 1; None where there is no such thing."""
    return reduce(lambda part, key: part.get(key) if isinstance(part, dict) else None, place.split("."), metrics)


def estimate(metrics: dict, place: str, spec: str) -> str:
    """A value, with its interval and n where there is one: "0.728 [0.584, 0.863], n = 9"; a dash for None."""
    value = find(metrics, place)
    if value is None:
        return "–"
    interval, count = beside(metrics, place)
    bounds = "" if interval is None else f" [{interval[0]:{spec}}, {interval[1]:{spec}}]"
    return f"{value:{spec}}{bounds}" + ("" if count is None else f", n\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}{count:,}")


def beside(metrics: dict, place: str) -> tuple[list[float] | None, int | None]:
    """The 95 % interval of a value and what it is over, None where metrics.json has none."""
    part, _, key = place.rpartition(".")
    interval = find(metrics, f"{part}.ci95" if key == "mean" else f"{place}_ci95")
    return interval, find(metrics, f"{part}.n") if key in ("mean", "auc", "accuracy") else None


def tiles(one) -> list[tuple[str, str]]:
    """The main result of each kind, as label and value; a joint task has two."""
    found, shown = one.results(), []
    if "segmentation" in found:
        metrics = found["segmentation"]
        background = estimate(metrics, *SEGMENTATION["– if nothing were called tumour"])
        baseline = f"nothing called tumour: {background}"
        shown.append(_tile(metrics, "volume_dice.mean", "mean volume Dice", "patients", baseline))
    if "classification" in found:
        level = "patient" if one.metrics.get("target") == "grade" else "slice"
        shown.append(_tile(found["classification"], f"{level}.auc", "AUC", f"{level}s", "chance: 0.5"))
    return shown


def _tile(metrics: dict, place: str, name: str, over: str, baseline: str) -> tuple[str, str]:
    """Label and value: ("AUC of 9 slices, 95 % interval 0.584 to 0.863 (chance: 0.5)", "0.728")."""
    value, (interval, count) = find(metrics, place), beside(metrics, place)
    bounds = "" if interval is None else ", 95 % interval {:.3f} to {:.3f}".format(*interval)
    return f"{name} of {count} {over}{bounds} ({baseline})", "–" if value is None else f"{value:.3f}"


def evaluation(run, one) -> list[Markup]:
    """The section of one evaluation: figures, example cases as layers, subgroups, and all cases.

    Args:
      run, one: a `runs.Run` and one of its `runs.Evaluation`.
    """
    metrics, figures = one.metrics, one.folder / "figures"
    step = f"checkpoint of step {metrics['step']:,}" if "step" in metrics else "several runs together"
    source = f"Split “{metrics.get('split')}” of {metrics.get('dataset')}, {step}.{_chosen(metrics)}"
    drawn = [picture(figures / name, caption, wide=name == "dice.png")
             for name, caption in FIGURES.items() if (figures / name).exists()]  # fmt: skip
    parts = [*map(paragraph, [source, *cautions(run, metrics)]), cards(*drawn)]
    if "segmentation" in one.results():
        parts += [*cases(run, one), subgroups(one.results()["segmentation"])]
    titles = {"cases": "All cases", "grades": "All grades"}
    return parts + [all_cases(rows, titles[name]) for name, rows in one.tables.items()]


def _chosen(metrics: dict) -> str:
    """How probabilities became masks or answers; nothing where metrics.json does not say."""
    found = metrics.get("postprocessing") or find(metrics, "segmentation.postprocessing")
    if not found and "step" in metrics:  # of a classifier, before it was written as of the others
        found = {name: metrics[name] for name in ("threshold", "patient_threshold") if name in metrics}
    values = (f"{name.replace('_', ' ')} {_setting(value)}" for name, value in (found or {}).items() if value != [])
    return f" Post-processing, fixed by the config or chosen on validation: {', '.join(values)}." if found else ""


def _setting(value: bool | float | list[int]) -> str:
    if isinstance(value, list):
        return " + ".join(map(str, value))
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else f"{value:.3g}"


def cautions(run, metrics: dict) -> Iterator[str]:
    """What would make these numbers look better than they are."""
    split = metrics.get("split")
    if split == "validation":
        yield "The best step and the post-processing were chosen on these patients, so the numbers flatter."
    same = split == "all" and metrics.get("dataset") == run.config.get("data.dir")
    if split == "train" or same or metrics.get("patients_trained_or_validated_on"):
        yield "The network was trained on these patients or some of them: the numbers say how well it learnt them."
    if run.splits.get("by") == "slice" and split in ("train", "validation", "test"):
        yield "This run is split by slice: other slices of these patients trained it, so the numbers flatter."
    count = find(metrics, "volume_dice.n") or find(metrics, "patient.n") or find(metrics, "segmentation.volume_dice.n")
    if count and count < 30:
        yield f"{count} patients are few: below 30 a bootstrap interval is too narrow."


def cases(run, one) -> list[Markup]:
    """Best, median and worst as layers; the still picture of an older evaluation."""
    folder = one.folder / "figures"
    if one.cases:
        text = ("Best, median and worst by volume Dice, each at the slice with most tumour. The boxes show and "
                "hide the outlines of what was drawn by hand (truth) and of what was predicted; where one is "
                "not to be seen, that mask is empty in the slice.")  # fmt: skip
        return [paragraph(text), cards(*(_case(folder / "cases", case) for case in one.cases))]
    parts = []
    if (folder / "overlays.png").exists():
        parts.append(cards(picture(folder / "overlays.png", "Best, median and worst by volume Dice.", wide=True)))
    if "step" in one.metrics:
        split, step = one.metrics.get("split"), one.metrics["step"]
        parts.append(paragraph("Outlines to show and hide are made by: python -m lgg_jax evaluate "
                               f"--workdir={run.workdir} --split={split} --step={step} --name={one.name}"))  # fmt: skip
    return parts


def _case(folder, case: dict) -> Markup:
    overlays = {mask.replace("_", " "): (folder / f"{case['name']}_{suffix}.png", COLOURS[mask])
                for mask, suffix in CONTOUR_FILES.items()}  # fmt: skip
    where = f"{case['patient']}, slice {case['slice']}"
    text = f"{case['rank'].capitalize()}: {where}, volume Dice {case['volume_dice']:.3f}."
    return layers(folder / f"{case['name']}.png", overlays, text)


def subgroups(metrics: dict) -> Markup:
    """A row a group: its mean volume Dice with interval and n."""
    rows = []
    for grouping, groups in metrics.get("subgroups", {}).items():
        for name, part in groups.items():
            size, dice = part.get("tumour_pixels"), part["volume_dice"]
            label = name if size is None else f"{name} ({size[0]:,} to {size[1]:,} pixels)"
            low, high = dice["ci95"] or (None, None)
            rows.append({"by": GROUPS.get(grouping, grouping), "group": label, "n": dice["n"], "mean": dice["mean"],
                         "from": low, "to": high, "median": dice["median"]})  # fmt: skip
    if not rows:
        return paragraph("No subgroups: no patient has a volume Dice.")
    text = "Subgroups: volume Dice, its 95 % interval from … to. Where n is small, a difference may be chance."
    frame = pd.DataFrame(rows).astype({"from": float, "to": float})
    return table(frame, text, dict.fromkeys(("mean", "from", "to", "median"), ".3f"))


def all_cases(rows: pd.DataFrame, title: str) -> Markup:
    """The rows of cases.csv, who it is on the left and what belongs to the patient on the right."""
    right = [name for name in ("institution", "grade") if name in rows]
    shown = rows.drop(columns=[name for name in UNSHOWN if name in rows])
    shown = shown[[*shown.columns.drop(right), *right]]
    shown = shown.rename(columns=lambda name: name.replace("_", " ").replace("px", "(px)").replace("dice", "Dice"))
    shown = shown.rename(columns={"hd95 (px)": "HD95 (px)"})
    fine = ("volume Dice", "sensitivity", "precision", "probability", "baseline", "volume share")
    formats = dict.fromkeys(fine, ".3f") | {"HD95 (px)": ".1f"}
    return table(shown, f"{title}; a click on a column's head sorts by it", formats)
