"""Evaluations on the page of `report`: a table of scores side by side, and one section per evaluation.

    scores({"before, test": metrics, "after, test": other}, "segmentation", {})
    evaluation(run, run.evaluations[0])

The scores are the rounded values of metrics.json and cases.csv. This module computes no scores.
"""

from collections.abc import Iterator
from functools import reduce

import pandas as pd
from markupsafe import Markup

from lgg_jax.figures.masks import COLOURS, CONTOUR_FILES
from lgg_jax.pages.html import SORTING, cards, layers, paragraph, picture, table

# Label → place in metrics.json and format. The interval of <name>.mean is <name>.ci95, that of any other <name> is
# <name>_ci95.
SEGMENTATION = {
    "volume Dice, mean": ("volume_dice.mean", ".3f"),
    "– all-background baseline": ("baselines.all_background.volume_dice", ".3f"),
    "volume Dice, median": ("volume_dice.median", ".3f"),
    "patients excluded (both masks empty)": ("both_empty", ",d"),
    "volume IoU, mean": ("volume_iou.mean", ".3f"),
    "sensitivity, mean": ("sensitivity.mean", ".3f"),
    "precision, mean": ("precision.mean", ".3f"),
    "HD95 in pixels, mean": ("hd95_px.mean", ".1f"),
    "HD95 in pixels, median": ("hd95_px.median", ".1f"),
    "– patients with one empty mask": ("hd95_one_empty", ",d"),
    "slice Dice, slices with tumour": ("slice_dice_tumour.mean", ".3f"),
    "slice Dice, all slices": ("slice_dice_all.mean", ".3f"),
    "– all-background baseline, all slices": ("all_background_slice_dice", ".3f"),
}
LEVEL = {
    "AUC": ("auc", ".3f"),
    "accuracy": ("accuracy", ".3f"),
    "– majority-class baseline": ("majority_accuracy", ".3f"),
    "F1": ("f1", ".3f"),
    "sensitivity": ("sensitivity", ".3f"),
    "specificity": ("specificity", ".3f"),
    "Brier score": ("brier", ".3f"),
    "expected calibration error": ("ece", ".3f"),
    "number of positives": ("n_positive", ",d"),
}
BASELINE = {"AUC": "auc", "accuracy": "accuracy", "Brier score": "brier"}
FIGURES = {
    "dice.png": "Volume Dice of each patient, sorted.",
    "roc.png": "ROC curve. A shaded area is the pointwise 95% confidence band of a bootstrap over patients.",
    "precision_recall.png": "Precision-recall curve. A shaded area is the pointwise 95% confidence band of a bootstrap "
    "over patients.",
    "reliability.png": "Calibration curve: the fraction of positives by predicted probability. On the diagonal, the "
    "probabilities are perfectly calibrated. The bars are the number of slices or patients in each bin.",
    "confusion.png": "Confusion matrix at the decision threshold. “Yes” is the positive class: grade III, or a slice "
    "with tumour. The percentages are shares of the true class.",
}  # fmt: skip
GROUPS = {"missing_sequences": "sequences", "tumour_size": "tumour size"}
# Names of the post-processing settings in metrics.json.
SETTINGS = {"flip_tta": "test-time augmentation (mirrored)", "largest_component": "largest connected component",
            "fill_holes": "hole filling", "finer": "multi-scale inference also at"}  # fmt: skip
# Columns of cases.csv that the page omits. They are for further analysis, and the IoU follows from the Dice.
OMITTED = ("slice_dice_all_sum", "slice_dice_tumour_sum", "volume_iou", "logit")


def scores(results: dict[str, dict], kind: str, published: dict[str, list[str]]) -> Markup:
    """Table with metrics in rows and evaluations in columns.

    Args:
      results: {column name: the part of metrics.json with this kind of scores}.
      kind: "segmentation" or "classification".
      published: additional rows, {label: one text per column}.
    """
    rows = _rows(results, kind)
    frame = pd.DataFrame({"metric": [*rows, *published]})
    for index, (name, metrics) in enumerate(results.items()):
        values = [estimate(metrics, *row) for row in rows.values()]
        frame[name] = values + [texts[index] for texts in published.values()]
    method = " (for the AUC per patient, of DeLong's method)" if kind == "classification" else ""
    text = f"Brackets contain the 95% confidence interval (CI) of a bootstrap over patients{method}."
    return table(frame, f"{kind.capitalize()}. {text} n is the number of patients or slices.", sortable=False)


def _rows(results: dict[str, dict], kind: str) -> dict[str, tuple[str, str]]:
    if kind == "segmentation":
        return SEGMENTATION
    rows = {f"{label}, per {level}": (f"{level}.{key}", spec)
            for level in ("patient", "slice") for label, (key, spec) in LEVEL.items()}  # fmt: skip
    baselines = {name: None for metrics in results.values() for name in metrics.get("baselines", {})}
    for name in [name for name in baselines if name != "majority"]:
        model = f"logistic regression on {name.replace('_', ' ')}"
        for label, key in BASELINE.items():
            rows[f"{label}, per patient, {model}"] = (f"baselines.{name}.{key}", ".3f")
    return rows


def find(metrics: dict, place: str):
    """`find({"a": {"b": 1}}, "a.b")` is 1. A missing place is None."""
    return reduce(lambda part, key: part.get(key) if isinstance(part, dict) else None, place.split("."), metrics)


def estimate(metrics: dict, place: str, spec: str) -> str:
    """A value with its interval and n, if there are any: "0.728 [0.584, 0.863], n = 9". A dash for None."""
    value = find(metrics, place)
    if value is None:
        return "–"
    interval, count = interval_and_n(metrics, place)
    bounds = "" if interval is None else f" [{interval[0]:{spec}}, {interval[1]:{spec}}]"
    return f"{value:{spec}}{bounds}" + ("" if count is None else f", n\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}{count:,}")


def interval_and_n(metrics: dict, place: str) -> tuple[list[float] | None, int | None]:
    """The 95% CI of a value and its number of patients or slices, None if metrics.json does not have them."""
    part, _, key = place.rpartition(".")
    interval = find(metrics, f"{part}.ci95" if key == "mean" else f"{place}_ci95")
    return interval, find(metrics, f"{part}.n") if key in ("mean", "auc", "accuracy") else None


def tiles(one) -> list[tuple[str, str]]:
    """Label and value of the main score of each kind. A joint task has two."""
    results, shown = one.results(), []
    if "segmentation" in results:
        metrics = results["segmentation"]
        baseline = f"all-background baseline: {estimate(metrics, *SEGMENTATION['– all-background baseline'])}"
        shown.append(_tile(metrics, "volume_dice.mean", "mean volume Dice", "patients", baseline))
    if "classification" in results:
        level = "patient" if one.metrics.get("target") == "grade" else "slice"
        shown.append(_tile(results["classification"], f"{level}.auc", "AUC", f"{level}s", "chance level: 0.5"))
    return shown


def _tile(metrics: dict, place: str, name: str, over: str, baseline: str) -> tuple[str, str]:
    """Label and value: ("AUC of 9 slices, 95% CI 0.584 to 0.863 (chance level: 0.5)", "0.728")."""
    value, (interval, count) = find(metrics, place), interval_and_n(metrics, place)
    bounds = "" if interval is None else ", 95% CI {:.3f} to {:.3f}".format(*interval)
    return f"{name} of {count} {over}{bounds} ({baseline})", "–" if value is None else f"{value:.3f}"


def evaluation(run, one) -> list[Markup]:
    """The section of one evaluation: figures, example cases with mask contours, subgroups, and all cases.

    Args:
      run: a `runs.Run`.
      one: a `runs.Evaluation` of the run.
    """
    metrics, figures = one.metrics, one.folder / "figures"
    model = (f"Checkpoint of step {metrics['step']:,}" if "step" in metrics
             else "Several runs (an ensemble or cross-validation folds)")  # fmt: skip
    source = f"{model}, evaluated on split “{metrics.get('split')}” of {metrics.get('dataset')}.{_settings(metrics)}"
    plots = [picture(figures / name, caption, wide=name == "dice.png")
             for name, caption in FIGURES.items() if (figures / name).exists()]  # fmt: skip
    parts = [*map(paragraph, [source, *limitations(run, metrics)]), cards(*plots)]
    if "segmentation" in one.results():
        parts += [*cases(run, one), subgroups(one.results()["segmentation"])]
    titles = {"cases": "All cases", "grades": "All grades"}
    return parts + [all_cases(rows, titles[name]) for name, rows in one.tables.items()]


def _settings(metrics: dict) -> str:
    """The post-processing as a sentence, empty if metrics.json does not have it."""
    settings = metrics.get("postprocessing") or find(metrics, "segmentation.postprocessing")
    if not settings and "step" in metrics:  # older evaluations of a classifier have the thresholds only
        settings = {name: metrics[name] for name in ("threshold", "patient_threshold") if name in metrics}
    texts = [f"{SETTINGS.get(name, name.replace('_', ' '))} {_setting(value)}"
             for name, value in (settings or {}).items() if value != []]  # fmt: skip
    selected = "Post-processing, fixed by the config or selected on the validation set"
    return f" {selected}: {', '.join(texts)}." if texts else ""


def _setting(value: bool | float | list[int]) -> str:
    if isinstance(value, list):
        return f"{' and '.join(map(str, value))} pixels"
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else f"{value:.3g}"


def limitations(run, metrics: dict) -> Iterator[str]:
    """Sentences about bias and uncertainty of the scores."""
    split = metrics.get("split")
    if split == "validation":
        yield "The checkpoint and the post-processing were selected on these patients: the scores are biased upward."
    same = split == "all" and metrics.get("dataset") == run.config.get("data.dir")
    if split == "train" or same or metrics.get("patients_trained_or_validated_on"):
        yield "The network was trained on these patients or some of them: the scores are biased upward."
    if run.splits.get("by") == "slice" and split in ("train", "validation", "test"):
        yield "The split is by slice: other slices of these patients leak into training. The scores are biased upward."
    count = find(metrics, "volume_dice.n") or find(metrics, "patient.n") or find(metrics, "segmentation.volume_dice.n")
    if count and count < 30:
        yield f"n = {count} patients: with fewer than 30, bootstrap confidence intervals are too narrow."


def cases(run, one) -> list[Markup]:
    """The best, median and worst case with mask contours; for older evaluations, one picture of all three."""
    folder = one.folder / "figures"
    if one.cases:
        text = ("Patients with the best, median and worst volume Dice: FLAIR with mask contours, at the slice with the "
                "most tumour. The checkboxes show and hide the contours. A mask without a contour is empty in this "
                "slice.")  # fmt: skip
        return [paragraph(text), cards(*(_case(folder / "cases", case) for case in one.cases))]
    parts = []
    if (folder / "overlays.png").exists():
        caption = "Patients with the best, median and worst volume Dice: FLAIR with the contours of both masks."
        parts.append(cards(picture(folder / "overlays.png", caption, wide=True)))
    if "step" in one.metrics:
        split, step = one.metrics.get("split"), one.metrics["step"]
        parts.append(paragraph("Mask contours that can be hidden are written by: python -m lgg_jax evaluate "
                               f"--workdir={run.workdir} --split={split} --step={step} --name={one.name}"))  # fmt: skip
    return parts


def _case(folder, case: dict) -> Markup:
    overlays = {mask.replace("_", " "): (folder / f"{case['name']}_{suffix}.png", COLOURS[mask])
                for mask, suffix in CONTOUR_FILES.items()}  # fmt: skip
    where = f"{case['patient']}, slice {case['slice']}"
    text = f"{case['rank'].capitalize()}: {where}, volume Dice {case['volume_dice']:.3f}."
    return layers(folder / f"{case['name']}.png", overlays, text)


def subgroups(metrics: dict) -> Markup:
    """Table of the volume Dice with one row per subgroup."""
    rows = []
    for grouping, groups in metrics.get("subgroups", {}).items():
        for name, part in groups.items():
            size, dice = part.get("tumour_pixels"), part["volume_dice"]
            label = name if size is None else f"{name} ({size[0]:,} to {size[1]:,} pixels)"
            low, high = dice["ci95"] or (None, None)
            rows.append({"variable": GROUPS.get(grouping, grouping), "subgroup": label, "n": dice["n"],
                         "mean": dice["mean"], "CI from": low, "CI to": high, "median": dice["median"]})  # fmt: skip
    if not rows:
        return paragraph("There are no subgroups, because no patient has a volume Dice.")
    text = ("Subgroups: volume Dice with the 95% CI of the mean. Differences between small subgroups may be due to "
            f"chance. {SORTING}")  # fmt: skip
    frame = pd.DataFrame(rows).astype({"CI from": float, "CI to": float})
    return table(frame, text, dict.fromkeys(("mean", "CI from", "CI to", "median"), ".3f"))


def all_cases(rows: pd.DataFrame, title: str) -> Markup:
    """Table of cases.csv with the patient in the first column, institution and grade in the last."""
    right = [name for name in ("institution", "grade") if name in rows]
    shown = rows.drop(columns=[name for name in OMITTED if name in rows])
    shown = shown[[*shown.columns.drop(right), *right]]
    shown = shown.rename(columns=lambda name: name.replace("_", " ").replace("px", "(px)").replace("dice", "Dice"))
    shown = shown.rename(columns={"hd95 (px)": "HD95 (px)", "baseline": "baseline probability"})
    fine = ("volume Dice", "sensitivity", "precision", "probability", "baseline probability", "volume share")
    formats = dict.fromkeys(fine, ".3f") | {"HD95 (px)": ".1f"}
    return table(shown, f"{title}. {SORTING}", formats)
