"""Segmentation: choice of the post-processing, validation score and evaluation, with known probabilities."""

import numpy as np
import pytest

from configs import default
from lgg_jax.data.cases import Case, make_case
from lgg_jax.data.volume import Geometry, Volume
from lgg_jax.errors import UserError
from lgg_jax.inference import predictor
from lgg_jax.inference.predictor import Postprocessing
from lgg_jax.tasks import segmentation
from lgg_jax.tasks.preparation import Preparation


def case(ground_truth: np.ndarray, probability: np.ndarray) -> Case:
    """A case for which the predictor `known` returns `probability`, from the FLAIR channel."""
    image = np.zeros((*ground_truth.shape, 3), np.uint8)
    images = np.repeat(probability[..., None], 3, axis=-1)
    side = ground_truth.shape[1]
    return make_case(Volume("p", image, ground_truth, np.arange(1), {}), Geometry(0, 0, side, side, side, side), images)


def known(_variables, images: np.ndarray) -> np.ndarray:
    return images[..., 1].astype(np.float32)


def masks(*places: tuple[int, int]) -> np.ndarray:
    """(1, 16, 16) bool, with 4 × 4 squares at these rows and columns."""
    mask = np.zeros((1, 16, 16), bool)
    for row, column in places:
        mask[0, row : row + 4, column : column + 4] = True
    return mask


def one_sided(_variables, images: np.ndarray) -> np.ndarray:
    """A predictor that adds a square at the left edge of every image."""
    return np.maximum(known({}, images), masks((12, 0)) * np.float32(0.8))


def choose(cases, predict=known, **fields) -> tuple[Postprocessing, float]:
    config = default.get_config().eval
    config.update(fields)
    return segmentation.choose(predict, {}, cases, config)


def test_of_equal_options_the_simplest_is_chosen():
    ground_truth = masks((2, 2))
    assert choose([case(ground_truth, ground_truth * 0.9)], flip_tta="off") == (Postprocessing(), 1.0)
    symmetric = masks((6, 6))
    assert choose([case(symmetric, symmetric * 0.9)]) == (Postprocessing(), 1.0)


@pytest.mark.parametrize("inside, outside, threshold", [(0.45, 0.35, 0.4), (0.65, 0.55, 0.6), (0.9, 0.65, 0.7)])
def test_the_threshold_with_the_best_score_is_chosen(inside, outside, threshold):
    ground_truth = masks((6, 6))
    probability = np.where(ground_truth, inside, np.where(masks((6, 6), (10, 6), (2, 6)), outside, 0.0))
    chosen, score = choose([case(ground_truth, probability)], largest_component="off")
    assert (chosen, score) == (Postprocessing(threshold=threshold), 1.0)


def test_choice_with_patients_without_tumour():
    """False positives with 0.55: at thresholds from 0.6 no patient has a score, so these thresholds are not chosen."""
    nothing, alarm = masks(), masks((2, 2)) * 0.55
    assert choose([case(nothing, alarm)] * 2, flip_tta="off")[1] == 0
    with pytest.raises(UserError, match=r"no validation patient has tumour in .* predicted mask; choose other"):
        choose([case(nothing, alarm * 0.1)], flip_tta="off")


def test_largest_component_is_chosen_if_it_improves_the_score():
    ground_truth = masks((2, 2)) | masks((2, 6))
    cases = [case(ground_truth, np.maximum(ground_truth * 0.9, masks((11, 11)) * 0.9))]
    chosen, score = choose(cases, flip_tta="off")
    assert (chosen, score) == (Postprocessing(largest_component=True), 1.0)
    assert choose(cases, flip_tta="off", largest_component="off")[0] == Postprocessing()


def test_fill_holes_is_chosen_if_it_improves_the_score():
    ground_truth, hole = masks((2, 2)), np.zeros((1, 16, 16), bool)
    hole[0, 3:5, 3:5] = True
    cases = [case(ground_truth, (ground_truth & ~hole) * 0.9)]
    assert choose(cases, flip_tta="off") == (Postprocessing(fill_holes=True), 1.0)
    assert choose(cases, flip_tta="off", fill_holes="off")[1] == pytest.approx(24 / 28)
    assert choose([case(ground_truth & ~hole, (ground_truth & ~hole) * 0.9)], flip_tta="off")[0] == Postprocessing()


def test_flip_tta_is_chosen_if_it_improves_the_score():
    """The mean over both mirror images reduces a probability of 0.8 on one side to 0.4."""
    ground_truth = masks((6, 6))
    cases = [case(ground_truth, ground_truth * 0.9)]
    fields = {"largest_component": "off", "threshold": 0.5}
    assert choose(cases, one_sided, **fields) == (Postprocessing(flip_tta=True), 1.0)
    assert choose(cases, one_sided, flip_tta="off", **fields)[1] == pytest.approx(2 / 3)


def test_the_grids_of_the_config_are_used(monkeypatch):
    """The probability is 0 on the finer grid: the mean of 0.9 becomes 0.45, and the threshold 0.4 is chosen."""
    ground_truth = masks((6, 6))
    coarse, fine = case(ground_truth, ground_truth * 0.9), case(ground_truth, ground_truth * 0.0)
    monkeypatch.setattr(predictor, "prepare_case", lambda _scan, _data, size: {32: fine}[size])
    cases = [coarse]
    fields = {"flip_tta": "off", "largest_component": "off", "fill_holes": "off"}
    assert choose(cases, **fields) == (Postprocessing(), 1.0)
    assert choose(cases, finer=(16,), **fields) == (Postprocessing(threshold=0.4, finer=(16,)), 1.0)
    assert choose(cases, finer=(16,), threshold=0.5, **fields)[1] == 0


def test_the_score_excludes_patients_with_two_empty_masks():
    ground_truth, nothing = masks((2, 2)), masks()
    cases = [case(ground_truth, ground_truth * 0.9), case(ground_truth, nothing * 0.9), case(nothing, nothing * 0.9)]
    assert choose(cases)[1] == 0.5
    assert segmentation.validate(known, {}, cases) == (0.5, {"volume_dice": 0.5, "volume_dice_min": 0.0})
    with pytest.raises(UserError, match="no validation patient has tumour"):
        segmentation.validate(known, {}, cases[2:])


def test_patients_without_tumour_have_no_figures(tmp_path):
    nothing = masks()
    metrics, tables, draw = segmentation.evaluate(
        known, {}, [case(nothing, nothing * 0.9)], Postprocessing(), Preparation(None)
    )
    draw(tmp_path)
    assert not list(tmp_path.iterdir())
    assert metrics["both_empty"] == len(tables["cases"]) == 1
    assert segmentation.headline(metrics) == "no volume has tumour in its ground-truth or predicted mask (1 volumes)"
