"""Segmentation metrics per patient (cases.csv) and over all patients (metrics.json).

    rows = [{"patient": p, "institution": "CS", "grade": 2, **score_case(prediction, ground_truth, image)} for …]
    metrics = summarise(pandas.DataFrame(rows))
"""

import numpy as np
import pandas as pd

from lgg_jax.data import volume
from lgg_jax.metrics.intervals import pooled, summary
from lgg_jax.metrics.overlap import confusion, dice, iou, precision, sensitivity, slice_dice
from lgg_jax.metrics.surface import hd95


def score_case(prediction: np.ndarray, ground_truth: np.ndarray, image: np.ndarray) -> dict:
    """The row of one patient in cases.csv.

    Args:
      prediction, ground_truth: (slice, height, width) bool, on the grid of the data set.
      image: (slice, height, width, channel), as stored, before normalisation.

    Returns:
      Column name → number, or a string for `missing_sequences`. `volume_dice`, `volume_iou`, `precision` and `hd95_px`
      are NaN if both masks are empty; `sensitivity` is NaN if the ground truth is empty. `slice_dice_all_sum` is a sum
      over all slices, `slice_dice_tumour_sum` a sum over the slices with tumour in the ground truth.
    """
    tp, fp, fn, _ = confusion(prediction, ground_truth)
    per_slice = slice_dice(prediction, ground_truth)
    has_tumour, predicted = ground_truth.any(axis=(1, 2)), prediction.any(axis=(1, 2))
    return {
        "volume_dice": float(dice(tp, fp, fn)),
        "volume_iou": float(iou(tp, fp, fn)),
        "hd95_px": hd95(prediction, ground_truth),
        "sensitivity": float(sensitivity(tp, fn)),
        "precision": float(precision(tp, fp, fn)),
        "tumour_pixels": int(tp + fn),
        "predicted_pixels": int(tp + fp),
        "slices": len(ground_truth),
        "tumour_slices": int(has_tumour.sum()),
        "false_positive_slices": int((predicted & ~has_tumour).sum()),
        "slice_dice_all_sum": float(per_slice.sum()),
        "slice_dice_tumour_sum": float(per_slice[has_tumour].sum()),
        "missing_sequences": missing_sequences(image),
    }


def missing_sequences(image: np.ndarray) -> str:
    """`volume.missing_sequences` of an image (slice, height, width, channel) as text: "none", "pre+post", "T2", …"""
    return "+".join(name.removesuffix("-contrast") for name in volume.missing_sequences(image)) or "none"


def summarise(cases: pd.DataFrame) -> dict:
    """The metrics of a segmentation metrics.json.

    Cases are excluded by their pixel counts, never because a value is NaN. So a failed case cannot drop out of a mean.

    Args:
      cases: one row per patient; the columns of `score_case`, `institution` (string) and `grade` (2, 3 or missing).

    Returns:
      A nested dictionary, ready for `json.dumps(..., allow_nan=False)`.
    """
    tumour, predicted = cases["tumour_pixels"] > 0, cases["predicted_pixels"] > 0
    scored = cases[tumour | predicted]
    slices, tumour_slices = cases["slices"].sum(), cases["tumour_slices"].sum()
    background = float(1 - tumour_slices / slices) if slices else None
    nothing_found = 0.0 if tumour.any() else None
    return {
        **{name: summary(scored[name]) for name in ("volume_dice", "volume_iou", "hd95_px", "precision")},
        "sensitivity": summary(cases.loc[tumour, "sensitivity"]),
        "slice_dice_tumour": pooled(cases["slice_dice_tumour_sum"], cases["tumour_slices"]),
        "slice_dice_all": pooled(cases["slice_dice_all_sum"], cases["slices"]),
        "all_background_slice_dice": background,
        "both_empty": int((~tumour & ~predicted).sum()),
        "hd95_one_empty": int((tumour != predicted).sum()),
        "baselines": {"all_background": {
            "volume_dice": nothing_found, "slice_dice_tumour": nothing_found, "slice_dice_all": background}},
        "subgroups": _subgroups(scored),
    }


def _subgroups(scored: pd.DataFrame) -> dict:
    missing = np.where(scored["missing_sequences"] == "none", "complete", "missing")
    grade = ["unknown" if pd.isna(value) else str(int(value)) for value in scored["grade"]]
    institution = scored["institution"].fillna("unknown")
    groupings = {"institution": institution, "grade": grade, "missing_sequences": missing}
    groups = {
        name: {key: {"volume_dice": summary(group)} for key, group in scored["volume_dice"].groupby(np.asarray(keys))}
        for name, keys in groupings.items()
    }
    return groups | {"tumour_size": _by_size(scored)}


def _by_size(scored: pd.DataFrame) -> dict:
    """Scores of the small, medium and large third of the tumours, each with its smallest and largest size in pixels.

    The limits are thirds of the evaluated cases and not fixed, because pixel counts depend on the grid and on the
    number of slices: fixed limits from one data set would put all cases of another into one group. The groups therefore
    compare models on the same cases only.
    """
    pixels = scored["tumour_pixels"]
    limits = pixels[pixels > 0].quantile([1 / 3, 2 / 3]).to_numpy()
    names = np.array(["small", "medium", "large"])[np.searchsorted(limits, pixels)]
    groups = dict(list(scored.groupby(np.where(pixels > 0, names, "no tumour"))))
    return {
        name: {"volume_dice": summary(groups[name]["volume_dice"]),
               "tumour_pixels": [int(groups[name]["tumour_pixels"].min()), int(groups[name]["tumour_pixels"].max())]}
        for name in ("small", "medium", "large", "no tumour") if name in groups
    }
