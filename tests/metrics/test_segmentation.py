"""Rows of cases.csv and content of metrics.json, for masks that are small enough to count by hand."""

import json

import numpy as np
import pandas as pd
import pytest

from lgg_jax.metrics.segmentation import missing_sequences, score_case, summarise

SHAPE = (4, 6, 8)
DIAGONAL = float(np.sqrt(16 + 36 + 64))
IMAGE = np.random.default_rng(0).integers(0, 255, (*SHAPE, 3), dtype=np.uint8)


def mask(*slices: int, rows: slice = slice(1, 3)) -> np.ndarray:
    result = np.zeros(SHAPE, bool)
    result[list(slices), rows, 2:6] = True
    return result


def case(patient: str, prediction, ground_truth, image=IMAGE, institution="CS", grade=2) -> dict:
    scores = score_case(prediction, ground_truth, image)
    return {"patient": patient, "institution": institution, "grade": grade, **scores}


def four_cases() -> pd.DataFrame:
    doubled = IMAGE.copy()
    doubled[..., 2] = doubled[..., 1]
    return pd.DataFrame([
        case("perfect", mask(1, 2), mask(1, 2)),
        case("missed", mask(), mask(0), doubled, institution="DU", grade=None),
        case("false positive", mask(3), mask(), institution="DU", grade=3),
        case("empty", mask(), mask(), institution=None, grade=3),
    ])


def test_row_by_hand():
    """The ground ground_truth has 8 pixels in each of slices 0 and 1, the prediction 8 in slice 1 and 4 in slice 3."""
    prediction = mask(1) | mask(3, rows=slice(1, 2))
    row = score_case(prediction, mask(0, 1), IMAGE)
    assert row.pop("hd95_px") == pytest.approx(2)
    assert row == pytest.approx({
        "volume_dice": 16 / 28, "volume_iou": 8 / 20, "sensitivity": 8 / 16, "precision": 8 / 12,
        "tumour_pixels": 16, "predicted_pixels": 12, "slices": 4, "tumour_slices": 2, "false_positive_slices": 1,
        "slice_dice_all_sum": 0 + 1 + 1 + 0, "slice_dice_tumour_sum": 0 + 1, "missing_sequences": "none",
    })


@pytest.mark.parametrize("copied, expected", [((), "none"), ((0,), "pre"), ((2,), "post"), ((0, 2), "pre+post")])
def test_missing_sequences(copied, expected):
    image = IMAGE.copy()
    for channel in copied:
        image[..., channel] = image[..., 1]
    assert missing_sequences(image) == expected


def test_a_sequence_with_one_different_pixel_is_not_missing():
    image = np.repeat(IMAGE[..., 1:2], 3, axis=-1)
    image[2, 3, 4, 0] ^= 1
    assert missing_sequences(image) == "post"


def test_cases_with_both_masks_empty_are_excluded_and_counted():
    metrics = summarise(four_cases())
    assert metrics["both_empty"] == 1
    assert metrics["hd95_one_empty"] == 2
    expected = {"volume_dice": (1 / 3, 3), "volume_iou": (1 / 3, 3), "precision": (1 / 3, 3),
                "sensitivity": (1 / 2, 2), "hd95_px": (2 * DIAGONAL / 3, 3)}
    for name, (mean, n) in expected.items():
        assert (metrics[name]["mean"], metrics[name]["n"]) == (pytest.approx(mean), n), name
        assert set(metrics[name]) == {"mean", "median", "std", "ci95", "n"}


def test_slice_dice_is_over_all_slices_and_has_a_baseline():
    metrics = summarise(four_cases())
    assert metrics["slice_dice_tumour"]["mean"] == pytest.approx(2 / 3)
    assert metrics["slice_dice_tumour"]["n"] == 3
    assert metrics["slice_dice_all"]["mean"] == pytest.approx(14 / 16)
    assert metrics["slice_dice_all"]["n"] == 16
    assert metrics["all_background_slice_dice"] == pytest.approx(13 / 16)


def test_baseline_is_the_score_of_an_all_background_prediction():
    masks = [mask(1, 2), mask(0), mask(), mask()]
    blank = summarise(pd.DataFrame([case(str(i), mask(), ground_truth) for i, ground_truth in enumerate(masks)]))
    baseline = summarise(four_cases())["baselines"]["all_background"]
    assert baseline == pytest.approx({name: blank[name]["mean"] for name in baseline})
    assert set(baseline) == {"volume_dice", "slice_dice_tumour", "slice_dice_all"}


def test_subgroups_split_the_scored_cases():
    groups = summarise(four_cases())["subgroups"]
    counts = {name: {key: group["volume_dice"]["n"] for key, group in part.items()} for name, part in groups.items()}
    assert counts == {
        "institution": {"CS": 1, "DU": 2},
        "grade": {"2": 1, "3": 1, "unknown": 1},
        "missing_sequences": {"complete": 2, "missing": 1},
        "tumour_size": {"small": 1, "large": 1, "no tumour": 1},
    }
    assert groups["institution"]["DU"]["volume_dice"]["mean"] == 0
    assert groups["missing_sequences"]["missing"]["volume_dice"]["mean"] == 0


def test_an_unknown_institution_is_a_subgroup():
    groups = summarise(pd.DataFrame([case("a", mask(1), mask(1), institution=None)]))["subgroups"]
    assert groups["institution"]["unknown"]["volume_dice"]["n"] == 1


def test_tumour_size_subgroups_have_their_limits():
    rows = [case(str(n), mask(0), mask(0)) | {"tumour_pixels": 10 * n} for n in range(1, 10)]
    sizes = summarise(pd.DataFrame(rows))["subgroups"]["tumour_size"]
    assert {name: (group["tumour_pixels"], group["volume_dice"]["n"]) for name, group in sizes.items()} == {
        "small": ([10, 30], 3), "medium": ([40, 60], 3), "large": ([70, 90], 3)}


@pytest.mark.parametrize("rows", [slice(0, 4), slice(0, 1), slice(1, 2), slice(3, 4), slice(0, 0)])
def test_metrics_of_any_cases_are_json_without_nan(rows):
    cases = four_cases().iloc[rows]
    metrics = json.loads(json.dumps(summarise(cases), allow_nan=False))
    assert metrics["volume_dice"]["n"] + metrics["both_empty"] == len(cases)


def test_cases_read_back_from_csv_give_the_same_metrics(tmp_path):
    cases = four_cases()
    cases.to_csv(tmp_path / "cases.csv", index=False)
    read = pd.read_csv(tmp_path / "cases.csv", keep_default_na=False, na_values=[""])
    assert summarise(read) == summarise(cases)
