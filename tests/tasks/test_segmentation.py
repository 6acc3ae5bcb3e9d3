"""What is chosen on validation, and what is scored and drawn of an outline, on probabilities that are known."""

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


def case(truth: np.ndarray, probability: np.ndarray) -> Case:
    """A case whose prediction is already known: `known` reads it from the FLAIR channel."""
    image = np.zeros((*truth.shape, 3), np.uint8)
    images = np.repeat(probability[..., None], 3, axis=-1)
    side = truth.shape[1]
    return make_case(Volume("p", image, truth, np.arange(1), {}), Geometry(0, 0, side, side, side, side), images)


def known(_variables, images: np.ndarray) -> np.ndarray:
    return images[..., 1].astype(np.float32)


def masks(*places: tuple[int, int]) -> np.ndarray:
    """(1, 16, 16) bool with 4 × 4 squares at these rows and columns."""
    mask = np.zeros((1, 16, 16), bool)
    for row, column in places:
        mask[0, row : row + 4, column : column + 4] = True
    return mask


def one_sided(_variables, images: np.ndarray) -> np.ndarray:
    """Finds a square at the left edge besides, whatever it is shown."""
    return np.maximum(known({}, images), masks((12, 0)) * np.float32(0.8))


def choose(cases, predict=known, **fields) -> tuple[Postprocessing, float]:
    config = default.get_config().eval
    config.update(fields)
    return segmentation.choose(predict, {}, cases, config)


def test_of_equals_the_plainest():
    truth = masks((2, 2))
    assert choose([case(truth, truth * 0.9)], flip_tta="off") == (Postprocessing(), 1.0)
    symmetric = masks((6, 6))
    assert choose([case(symmetric, symmetric * 0.9)]) == (Postprocessing(), 1.0)


@pytest.mark.parametrize("inside, outside, threshold", [(0.45, 0.35, 0.4), (0.65, 0.55, 0.6), (0.9, 0.65, 0.7)])
def test_the_threshold_that_scores_best(inside, outside, threshold):
    truth = masks((6, 6))
    probability = np.where(truth, inside, np.where(masks((6, 6), (10, 6), (2, 6)), outside, 0.0))
    chosen, score = choose([case(truth, probability)], largest_component="off")
    assert (chosen, score) == (Postprocessing(threshold=threshold), 1.0)


def test_what_is_chosen_of_patients_without_tumour():
    """A false alarm of 0.55: from a threshold of 0.6 on there is nothing to score, and no score is not the best."""
    nothing, alarm = masks(), masks((2, 2)) * 0.55
    assert choose([case(nothing, alarm)] * 2, flip_tta="off")[1] == 0
    with pytest.raises(UserError, match="no validation patient has tumour, drawn or predicted; choose other"):
        choose([case(nothing, alarm * 0.1)], flip_tta="off")


def test_clean_up_where_it_helps():
    truth = masks((2, 2)) | masks((2, 6))
    cases = [case(truth, np.maximum(truth * 0.9, masks((11, 11)) * 0.9))]
    chosen, score = choose(cases, flip_tta="off")
    assert (chosen, score) == (Postprocessing(largest_component=True), 1.0)
    assert choose(cases, flip_tta="off", largest_component="off")[0] == Postprocessing()


def test_holes_are_filled_where_it_helps():
    truth, hole = masks((2, 2)), np.zeros((1, 16, 16), bool)
    hole[0, 3:5, 3:5] = True
    cases = [case(truth, (truth & ~hole) * 0.9)]
    assert choose(cases, flip_tta="off") == (Postprocessing(fill_holes=True), 1.0)
    assert choose(cases, flip_tta="off", fill_holes="off")[1] == pytest.approx(24 / 28)
    assert choose([case(truth & ~hole, (truth & ~hole) * 0.9)], flip_tta="off")[0] == Postprocessing()


def test_flips_where_they_help():
    """What is found on one side alone, at 0.8, falls to 0.4."""
    truth = masks((6, 6))
    cases = [case(truth, truth * 0.9)]
    fields = {"largest_component": "off", "threshold": 0.5}
    assert choose(cases, one_sided, **fields) == (Postprocessing(flip_tta=True), 1.0)
    assert choose(cases, one_sided, flip_tta="off", **fields)[1] == pytest.approx(2 / 3)


def test_grids_are_those_of_the_config(monkeypatch):
    """On the finer grid alone nothing is found: 0.9 becomes 0.45, and a threshold of 0.4 is chosen."""
    truth = masks((6, 6))
    coarse, fine = case(truth, truth * 0.9), case(truth, truth * 0.0)
    monkeypatch.setattr(predictor, "prepare_case", lambda _scan, _data, size: {32: fine}[size])
    cases = [coarse]
    fields = {"flip_tta": "off", "largest_component": "off", "fill_holes": "off"}
    assert choose(cases, **fields) == (Postprocessing(), 1.0)
    assert choose(cases, finer=(16,), **fields) == (Postprocessing(threshold=0.4, finer=(16,)), 1.0)
    assert choose(cases, finer=(16,), threshold=0.5, **fields)[1] == 0


def test_the_score_is_the_mean_over_patients_with_tumour_or_a_find():
    truth, nothing = masks((2, 2)), masks()
    cases = [case(truth, truth * 0.9), case(truth, nothing * 0.9), case(nothing, nothing * 0.9)]
    assert choose(cases)[1] == 0.5
    assert segmentation.validate(known, {}, cases) == (0.5, {"volume_dice": 0.5, "volume_dice_min": 0.0})
    with pytest.raises(UserError, match="no validation patient has tumour"):
        segmentation.validate(known, {}, cases[2:])


def test_nothing_to_draw_of_patients_without_tumour(tmp_path):
    nothing = masks()
    metrics, tables, draw = segmentation.evaluate(
        known, {}, [case(nothing, nothing * 0.9)], Postprocessing(), Preparation(None)
    )
    draw(tmp_path)
    assert not list(tmp_path.iterdir())
    assert metrics["both_empty"] == len(tables["cases"]) == 1
    assert segmentation.headline(metrics) == "no volume has tumour, drawn or predicted (1 volumes)"
