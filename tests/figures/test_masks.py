"""Figures of masks: the selected slices and cases, contours at the masks, and files that open as pictures."""

import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from lgg_jax.figures.masks import case_layers, dice_distribution, key_slice, overlay_grid, overlay_image

GROUND_TRUTH, PREDICTION, BOTH = (86, 180, 233), (213, 94, 0), (240, 228, 66)
IMAGE = np.random.default_rng(0).integers(0, 200, (5, 32, 40, 3), dtype=np.uint8)


def mask(*sizes: int, top: int = 10) -> np.ndarray:
    """(5, 32, 40) with a square of the given size in each slice."""
    result = np.zeros((5, 32, 40), bool)
    for index, size in enumerate(sizes):
        result[index, top:top + size, 10:10 + size] = True
    return result


def case(dice: float):
    return key_slice(f"patient {dice}", dice, IMAGE, mask(0, 8), mask(0, 6))


def pixels(path) -> np.ndarray:
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        return np.asarray(picture.convert("RGB")).astype(int)


def has_colour(path, colour, tolerance=12) -> bool:
    return bool((np.abs(pixels(path) - colour).max(axis=-1) <= tolerance).any())


def test_key_slice_has_most_tumour():
    chosen = key_slice("p", 0.5, IMAGE, mask(0, 3, 7, 2), mask(9, 9, 9, 9))
    assert chosen.number == 3
    np.testing.assert_array_equal(chosen.flair, IMAGE[2, ..., 1])
    np.testing.assert_array_equal(chosen.ground_truth, mask(0, 3, 7, 2)[2])
    np.testing.assert_array_equal(chosen.prediction, mask(9, 9, 9, 9)[2])


def test_key_slice_without_tumour_has_most_prediction():
    assert key_slice("p", 0.0, IMAGE, mask(), mask(0, 2, 0, 5)).number == 4
    assert key_slice("p", np.nan, IMAGE, mask(), mask()).number == 1


def test_key_slice_does_not_keep_the_volume_in_memory():
    chosen = case(0.5)
    assert all(plane.base is None for plane in (chosen.flair, chosen.ground_truth, chosen.prediction))


def test_overlay_image_by_pixel():
    """Ground truth in rows 10–17, prediction in rows 13–20, both in columns 10–17: contours coincide in rows 13–17."""
    picture = overlay_image(IMAGE[0], mask(8)[0], mask(8, top=13)[0])
    assert picture.shape == (32, 40, 3) and picture.dtype == np.uint8
    assert tuple(picture[10, 14]) == GROUND_TRUTH
    assert tuple(picture[20, 14]) == PREDICTION
    assert tuple(picture[15, 10]) == BOTH
    inside = picture[15, 14]
    assert inside[0] == inside[1] == inside[2]


def test_overlay_image_without_masks_is_grey_flair():
    flair = np.repeat(np.arange(40.0)[None], 32, axis=0)
    image = np.stack([flair * 0, flair * 3 - 50, flair * 0 + 9], axis=-1)
    picture = overlay_image(image, mask()[0], mask()[0])
    assert (picture == picture[..., :1]).all()
    assert picture[0, 0, 0] == 0 and picture[0, -1, 0] == 255
    assert picture[0, 19, 0] == pytest.approx(255 * 19 / 39, abs=2)


def test_overlay_image_of_a_blank_slice():
    assert not overlay_image(np.zeros((8, 8, 3)), np.zeros((8, 8), bool), np.zeros((8, 8), bool)).any()


def test_overlay_grid_has_both_contours(tmp_path):
    overlay_grid([case(value) for value in (0.3, 0.9, 0.6, np.nan)], tmp_path / "grid.png")
    height, width, _ = pixels(tmp_path / "grid.png").shape
    assert 1000 < width < 1500 and 800 < height < 1300
    assert has_colour(tmp_path / "grid.png", GROUND_TRUTH) and has_colour(tmp_path / "grid.png", PREDICTION)


def test_overlay_grid_selects_best_median_and_worst(tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr("lgg_jax.figures.masks._show", lambda axes, case, masks: shown.append(case.volume_dice))
    overlay_grid([case(value) for value in (0.3, 0.9, np.nan, 0.0, 0.6, 0.7)], tmp_path / "grid.png")
    assert shown[::4] == [0.9, 0.6, 0.0]


@pytest.mark.parametrize("count", [1, 2])
def test_overlay_grid_of_few_cases_repeats_none(tmp_path, count):
    overlay_grid([case(0.1 * index) for index in range(count)], tmp_path / "grid.png")
    assert len(pixels(tmp_path / "grid.png")) == pytest.approx(330 * count + 44, abs=3)


def test_overlay_grid_without_a_score(tmp_path):
    with pytest.raises(ValueError, match="no patient"):
        overlay_grid([case(np.nan)], tmp_path / "grid.png")


def test_case_layers(tmp_path):
    """FLAIR unchanged; contours at four times the resolution, at the edges of the masks and transparent elsewhere."""
    case_layers([case(value) for value in (0.3, 0.9, np.nan, 0.6)], tmp_path / "cases")
    rows = json.loads((tmp_path / "cases" / "cases.json").read_text())["cases"]
    assert [(row["name"], row["patient"], row["slice"]) for row in rows] == [
        ("best", "patient 0.9", 2), ("median", "patient 0.6", 2), ("worst", "patient 0.3", 2)]  # fmt: skip
    assert pixels(tmp_path / "cases" / "best.png").shape[:2] == (32, 40)
    for name, colour, size in (("truth", GROUND_TRUTH, 8), ("prediction", PREDICTION, 6)):
        path = tmp_path / "cases" / f"median_{name}.png"
        with Image.open(path) as picture:
            layer = np.asarray(picture)
        assert layer.shape == (128, 160, 4) and has_colour(path, colour)
        rows, columns = np.nonzero(layer[..., 3] > 128)
        for places in (rows, columns):
            np.testing.assert_allclose([places.min(), places.max()], [40, 4 * (10 + size)], atol=6)
        assert not layer[48:56, 48:56, 3].any()


def test_case_layers_of_one_case(tmp_path):
    case_layers([case(0.5)], tmp_path / "cases")
    assert (tmp_path / "cases" / "best_and_median_and_worst_truth.png").exists()


@pytest.mark.parametrize("ground_truth, prediction", [(mask(), mask(0, 3)), (mask(32), ~mask()), (~mask(), mask())],
                         ids=["no tumour", "at the border", "everywhere"])
def test_overlay_grid_of_unusual_masks(tmp_path, ground_truth, prediction):
    overlay_grid([key_slice("p", 0.0, IMAGE, ground_truth, prediction)], tmp_path / "grid.png")
    assert (tmp_path / "grid.png").stat().st_size > 10_000


@pytest.mark.parametrize("values", [[0.9, 0.2, np.nan, 0.7], [0.5], [np.nan]], ids=["several", "one", "none"])
def test_dice_distribution(tmp_path, values):
    cases = pd.DataFrame({"patient": [f"p{index}" for index in range(len(values))], "volume_dice": values})
    dice_distribution(cases, tmp_path / "dice.png")
    assert has_colour(tmp_path / "dice.png", (0, 114, 178)) == np.isfinite(values).any()
    assert pixels(tmp_path / "dice.png").shape[1] == 770
