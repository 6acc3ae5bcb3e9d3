"""Joint segmentation and grading: labels, losses, evaluation, pooled folds and checks of the config."""

import dataclasses
import json

import jax
import numpy as np
import pandas as pd
import pytest

from configs import multitask
from lgg_jax.data.cases import make_case
from lgg_jax.data.mask_features import mask_features
from lgg_jax.data.volume import Geometry, Volume
from lgg_jax.errors import UserError
from lgg_jax.inference.predictor import Postprocessing
from lgg_jax.tasks import classification, joint, segmentation
from lgg_jax.tasks import preparation as grading

SLICES, SIZE = 4, 32
GEOMETRY = Geometry(0, 0, SIZE, SIZE, SIZE, SIZE)


def scan(name="P", grade: float | None = 3.0, age: float | None = 50.0) -> Volume:
    """A scan with tumour in the second and third slice."""
    image = np.random.default_rng(0).integers(0, 4, (SLICES, SIZE, SIZE, 3))
    image[:, 4:28, 4:28] += 100
    mask = np.zeros(image.shape[:3], bool)
    mask[1:3, 10:18, 10:18] = True
    return Volume(name, image.astype(np.uint8), mask, np.arange(SLICES, dtype=np.int32), {"grade": grade, "age": age})


def case(probability: np.ndarray, logits, **fields):
    """A case for which the predictor `known` returns `probability` and `logits`, from the first two channels."""
    images = np.zeros((SLICES, SIZE, SIZE, 3))
    images[..., 0], images[..., 1] = probability, np.float32(logits)[:, None, None]
    return make_case(scan(**fields), GEOMETRY, images)


def known(_variables, images: np.ndarray, clinical: np.ndarray) -> dict:
    assert clinical.shape == (len(images), 0)
    return {"mask": images[..., 0].astype(np.float32), "label": images[:, 0, 0, 1].astype(np.float32)}


def mask(*slices: int, value=0.9) -> np.ndarray:
    """Probabilities (slice, height, width) with a rectangle of `value` in these slices."""
    probability = np.zeros((SLICES, SIZE, SIZE))
    probability[list(slices), 10:18, 10:14] = value
    return probability


def config(**fields):
    result = multitask.get_config()
    result.update_from_flattened_dict(fields)
    return result


@pytest.mark.parametrize("grade, expected", [(3.0, 1), (2.0, 0), (None, np.nan)])
def test_the_label_of_a_slice_with_tumour_is_the_grade(monkeypatch, tmp_path, grade, expected):
    monkeypatch.setattr(grading, "preparation", lambda *_: grading.Preparation(None, {"tabular.json": {}}))
    prepared = joint.preparation(config(**{"data.size": SIZE}), tmp_path, None)
    rows = prepared.prepare(scan(grade=grade))
    np.testing.assert_array_equal(rows.labels, [np.nan, expected, expected, np.nan])
    assert len(rows.images) == SLICES and rows.masks[1].any()
    assert prepared.files == {"tabular.json": {}}


def batch(label_weight=(1, 1, 0, 0)) -> dict:
    rng = np.random.default_rng(0)
    mask = (rng.random((4, 8, 8)) < 0.3).astype(np.float32)
    return {"mask": mask, "weight": np.float32([1, 1, 1, 0]), "label": np.float32([1, 0, 0, 1]),
            "label_weight": np.float32(label_weight)}  # fmt: skip


LOGITS = {"mask": np.random.default_rng(1).normal(size=(4, 8, 8)).astype(np.float32), "label": np.float32([2, 1, 3, 0])}


def gradients(fields: dict, **changes) -> dict:
    return jax.grad(lambda x: joint.loss(config(**fields).loss, x, batch(**changes), lambda x: x)[0])(LOGITS)


def test_the_gradient_has_both_losses():
    loss = config().loss
    alone = jax.grad(lambda x: segmentation.loss(loss, x, batch(), lambda x: x)[0])(LOGITS["mask"])
    both = gradients({"loss.label": 0.2})
    np.testing.assert_allclose(both["mask"], alone, rtol=1e-6)
    p = 1 / (1 + np.exp(-LOGITS["label"]))
    np.testing.assert_allclose(both["label"], 0.2 * np.float32([p[0] - 1, p[1], 0, 0]) / 2, rtol=1e-5)
    assert not gradients({"loss.label": 0.0})["label"].any()


def test_a_batch_without_grades_trains_the_segmentation():
    both = gradients({}, label_weight=(0, 0, 0, 0))
    assert both["mask"].any() and not both["label"].any() and np.isfinite(both["label"]).all()


def test_metrics_of_a_step():
    loss, metrics = joint.loss(config().loss, LOGITS, batch(), lambda x: x)
    assert {"loss", "bce", "dice", "grade_loss", "grade_accuracy"} == set(metrics)
    assert metrics["loss"][0] / metrics["loss"][1] == pytest.approx(float(loss))
    correct, count = metrics["grade_accuracy"]
    assert (correct, count) == (1, 2)
    parts = metrics["bce"][0] / 3 + metrics["dice"][0] / 3 + 0.2 * metrics["grade_loss"][0] / 2
    assert float(loss) == pytest.approx(float(parts), rel=1e-5)


def evaluate(*cases, threshold=0.5, flip=False, predict=known, files=None):
    chosen = Postprocessing(flip, threshold=threshold)
    return joint.evaluate(predict, {}, cases, chosen, grading.Preparation(None, files or {}))


def test_both_metrics_and_all_tables(tmp_path):
    cases = [
        case(mask(1, 2), [9, 1, 2, 9], name="A"), case(mask(1), [9, -3, 9, 9], name="B", grade=2.0),
        case(mask(2), [9, 9, 9, 9], name="C", grade=None),
    ]  # fmt: skip
    metrics, tables, draw = evaluate(*cases)
    json.dumps(metrics, allow_nan=False)
    assert set(metrics) == {"segmentation", "classification"}
    assert metrics["segmentation"]["volume_dice"]["n"] == 3
    assert list(tables["cases"]["patient"]) == ["A", "B", "C"]
    assert list(tables["grades"]["patient"]) == ["A", "B"], "the grade of C is unknown"
    # The mean over the slices with tumour in the predicted mask, not in the ground-truth mask.
    np.testing.assert_allclose(tables["grades"]["logit"], [1.5, -3])
    assert metrics["classification"]["patient"]["auc"] == 1
    assert metrics["classification"]["patient"]["n"] == 2 and metrics["classification"]["slice"]["n"] == 2 * SLICES
    draw(tmp_path)
    assert {"overlays.png", "dice.png", "roc.png", "confusion.png"} <= {path.name for path in tmp_path.iterdir()}
    text = joint.headline(metrics)
    assert "volume Dice" in text and "per patient: AUC 1.0000" in text


def test_the_grade_uses_the_mask_with_the_chosen_threshold():
    faint = case(mask(1, value=0.4) + mask(3), [0, 2, 4, 6])
    for threshold, logit in ((0.5, 6), (0.3, 4)):
        assert evaluate(faint, threshold=threshold)[1]["grades"]["logit"][0] == logit


@pytest.mark.parametrize("flip, logit", [(False, 3), (True, 6)])
def test_the_grade_uses_the_mask_with_the_chosen_flip_tta(flip, logit):
    def blind_on_the_right(variables, images, clinical):
        output = known(variables, images, clinical)
        return output | {"mask": output["mask"] * (np.arange(SIZE) < SIZE // 2)}

    halved = case(mask(1, value=0.8) + mask(2, value=1.0), [0, 0, 6, 0])
    assert evaluate(halved, flip=flip, predict=blind_on_the_right)[1]["grades"]["logit"][0] == logit


def test_the_baseline_uses_the_predicted_mask():
    training = [{"age": 30.0 + i, "volume_share": 0.1 * i, "label": i % 2} for i in range(6)]
    one = case(mask(1), [0, 0, 0, 0])
    table = evaluate(one, files={grading.FILE: {"encoder": None, "training": training}})[1]["grades"]
    assert table["volume_share"][0] == mask_features(one.scan, mask(1) > 0.5)["volume_share"]
    assert 0 < table["baseline"][0] < 1


def test_a_data_set_without_grades_has_segmentation_scores(tmp_path):
    metrics, tables, draw = evaluate(case(mask(1), [0, 0, 0, 0], grade=None))
    assert metrics["classification"] is None and metrics["segmentation"]["volume_dice"]["n"] == 1
    assert set(tables) == {"cases"}
    draw(tmp_path)
    assert "per patient" not in joint.headline(metrics)


def test_pooled_folds(tmp_path):
    folders, logits = [], []
    for name, grade, logit in (("A", 3.0, 2), ("B", 2.0, 1), ("C", 3.0, 0), ("D", None, 5)):
        folder = tmp_path / name
        folder.mkdir()
        _, tables, _ = evaluate(case(mask(1), [logit] * SLICES, name=name, grade=grade))
        for title, table in tables.items():
            table.to_csv(folder / f"{title}.csv", index=False)
        folders.append(folder)
        logits.append(logit)
    metrics, tables, draw = joint.pool(folders)
    assert metrics["segmentation"]["volume_dice"]["n"] == 4
    assert (metrics["classification"]["patient"]["n"], metrics["classification"]["patient"]["auc"]) == (3, 0.5)
    assert isinstance(tables["grades"], pd.DataFrame) and list(tables["grades"]["patient"]) == ["A", "B", "C"]
    draw(tmp_path)


def test_validation_and_choice_are_those_of_the_segmentation(tmp_path):
    cases = [case(scan().mask * 0.9, [0] * SLICES)]
    assert joint.validate(known, {}, cases)[0] == 1
    plain = {"eval.flip_tta": "off", "eval.largest_component": "choose", "eval.fill_holes": "choose"}
    chosen, score = joint.choose(known, {}, cases, config(**plain, **{"eval.threshold": 0.0}).eval)
    assert (chosen, score) == (Postprocessing(), 1)
    assert [picture.shape for picture in joint.pictures(known, {}, cases).values()] == [(1, SIZE, SIZE, 3)]


def test_entries_of_metrics_json_that_describe_the_run():
    assert joint.about(config()) == {"target": "grade", "region": "slice", "masks": "predicted"}
    assert joint.CHOSEN is Postprocessing and joint.inputs is classification.inputs


def test_the_predictor_returns_both_outputs():
    class Both:
        def apply(self, variables, image, clinical, train):
            assert not train
            return {"mask": image[..., 0], "label": image[:, 0, 0, 1] + clinical.sum(axis=1)}

    predict = joint.predictor(Both(), 2)
    images = np.random.default_rng(0).normal(size=(3, 8, 8, 3)).astype(np.float32)
    output = predict({"params": {"w": np.ones(1)}}, images, np.zeros((3, 0), np.float32))
    np.testing.assert_allclose(output["mask"], 1 / (1 + np.exp(-images[..., 0])), rtol=1e-5)
    np.testing.assert_allclose(output["label"], images[:, 0, 0, 1], rtol=1e-6)


@pytest.mark.parametrize("fields, message", [
    ({"model.name": "unet"}, "config.model.name='unet', grade_head=True does not give both a mask and a grade"),
    ({"model.grade_head": False}, "grade_head=False does not give both a mask and a grade"),
    ({"data.target": "presence"}, "its own predicted mask alone"),
    ({"data.region": "crop"}, "its own predicted mask alone"),
    ({"data.tabular": ("age",)}, "its own predicted mask alone"),
    ({"data.segmentation_workdir": "W"}, "its own predicted mask alone"),
    ({"eval.flip_tta": "maybe"}, "config.eval.flip_tta='maybe' is unknown"),
    ({"loss.bce": 0.0, "loss.dice": 0.0}, "config.loss has no term"),
])  # fmt: skip
def test_errors_that_a_user_can_fix(fields, message):
    joint.check(config())
    with pytest.raises(UserError, match=message):
        joint.check(config(**fields))


def test_an_evaluation_does_not_change_the_case():
    """The features of the predicted mask are stored in a copy of the case."""
    one = case(mask(0), [0] * SLICES)
    before = dataclasses.replace(one)
    evaluate(one)
    assert one.scan.clinical == before.scan.clinical == {"grade": 3.0, "age": 50.0}
    np.testing.assert_array_equal(one.tumour, [False, True, True, False])
