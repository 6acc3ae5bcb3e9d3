"""Classification of presence and grade: loss, validation score, chosen options, evaluation and checks of the config."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit
from sklearn.metrics import roc_auc_score

from configs import default, grade_resnet50
from lgg_jax import parallel
from lgg_jax.data.cases import make_case
from lgg_jax.data.volume import Geometry, Volume
from lgg_jax.errors import UserError
from lgg_jax.tasks import classification
from lgg_jax.tasks import preparation as grading

SIZE = 32
LEVEL = {"accuracy", "f1", "auc", "auc_ci95", "brier", "ece", "n", "n_positive", "sensitivity", "specificity"}


def case(name: str, labels, logits, tumour=None, **clinical):
    """A case of a patient for which the predictor `known` returns `logits`."""
    logits = np.float32(logits)
    image = np.zeros((len(logits), 8, 8, 3), np.uint8)
    mask = np.zeros(image.shape[:3], bool)
    mask[np.flatnonzero(np.ones(len(logits)) if tumour is None else tumour), 2:4] = True
    values = dict.fromkeys(("grade", "age", "volume_share")) | clinical
    scan = Volume(name, image, mask, np.arange(len(logits), dtype=np.int32), values)
    images = np.broadcast_to(logits[:, None, None, None], (len(logits), 4, 4, 3))
    return make_case(scan, Geometry(0, 0, 8, 8, 8, 4), images, labels)


def known(_variables, images: np.ndarray, clinical: np.ndarray) -> np.ndarray:
    assert len(clinical) == len(images)
    return images[:, 0, 0, 0].astype(np.float32)


def graded() -> list:
    """Four patients with mean logits 1, 2, -1 and -3. The last has no slice with tumour."""
    return [
        case("A", [1, 1, 1], [0, 2, 9], tumour=[1, 1, 0], grade=3.0, age=60.0, volume_share=0.3),
        case("B", [0, 0], [2, 2], grade=2.0, age=30.0, volume_share=0.1),
        case("C", [1], [-1], grade=3.0, age=None, volume_share=0.2),
        case("D", [0, 0], [-2, -4], tumour=[0, 0], grade=2.0, age=40.0),
    ]


def presence() -> list:
    return [case("A", [0, 1, 1], [-1, 2, -3], [0, 1, 1]), case("B", [0, 1], [1, 4], [0, 1])]


def cross_entropy(label: int, logit: float) -> float:
    p = expit(logit)
    return -np.log(p if label else 1 - p)


def test_the_loss_uses_known_labels_and_class_weights():
    config = grade_resnet50.get_config().loss
    config.update({"label": 0.5, "label_positive_weight": 3.0})
    batch = {"label": np.float32([1, 0, 1, 0]), "label_weight": np.float32([1, 1, 0, 1]),
             "weight": np.float32([1, 1, 1, 0])}  # fmt: skip
    logits = np.float32([0.5, 1, 7, 7])
    loss, metrics = classification.loss(config, logits, batch, lambda x: x)
    expected = (3 * cross_entropy(1, 0.5) + cross_entropy(0, 1)) / 2
    assert float(loss) == pytest.approx(0.5 * expected, rel=1e-5)
    assert metrics["loss"][0] / metrics["loss"][1] == pytest.approx(expected, rel=1e-5)
    assert tuple(map(float, metrics["accuracy"])) == (1, 2)


def test_validation_of_the_grade_is_per_patient():
    score, values = classification.validate(known, {}, graded())
    logits = {"A": (1, 1), "B": (0, 2), "C": (1, -1), "D": (0, -3)}
    expected = np.mean([cross_entropy(*each) for each in logits.values()])
    assert score == pytest.approx(-expected) and values["loss"] == pytest.approx(expected)
    assert values["auc"] == 0.5


def test_validation_of_presence_is_per_slice():
    score, values = classification.validate(known, {}, presence())
    pairs = [(0, -1), (1, 2), (1, -3), (0, 1), (1, 4)]
    assert score == pytest.approx(-np.mean([cross_entropy(*pair) for pair in pairs]))
    assert values["auc"] == pytest.approx(4 / 6)


def test_validation_with_one_class_has_a_score_but_no_auc():
    assert set(classification.validate(known, {}, graded()[1:2])[1]) == {"loss"}
    with pytest.raises(UserError, match="no validation patient has a label"):
        classification.validate(known, {}, [])


def test_gathered_slices_do_not_depend_on_the_number_of_hosts(monkeypatch):
    """Two hosts together have the rows of one host."""
    shares, cases = [], graded()
    monkeypatch.setattr(parallel, "gather", lambda rows: shares.append(rows) or rows)
    for number in range(2):
        monkeypatch.setattr(parallel, "host", lambda number=number: (number, 2))
        classification._gathered(known, {}, cases[number::2], False)
    both = pd.DataFrame(np.concatenate(shares), columns=["patient", "tumour_slice", "label", "logit"])
    assert [len(group) for _, group in both.groupby("patient")] == [3, 2, 1, 2]


def test_chosen_thresholds_have_the_highest_accuracy():
    cases = [case("A", [1, 1], [3, 3]), case("B", [0, 0], [1, 2]), case("C", [0], [-1])]
    chosen, score = classification.choose(known, {}, cases, default.get_config().eval)
    assert not chosen.flip_tta  # it does not change the score here
    assert expit(2) < chosen.threshold < expit(3) and expit(1.5) < chosen.patient_threshold < expit(3)
    assert score == classification.validate(known, {}, cases)[0]


@pytest.mark.parametrize("other, helps", [(4.0, True), (-4.0, False)])
def test_flip_tta_is_chosen_if_it_improves_the_score(other, helps):
    """`known` reads the left edge of an image, which is the right edge in the mirror image."""
    cases = [case("A", [1, 1], [1, 2]), case("B", [0, 0], [-1, -2])]
    cases = [dataclasses.replace(each, images=each.images.copy()) for each in cases]
    for each, sign in zip(cases, (1, -1), strict=True):
        each.images[:, :, -1] = sign * other
    config = default.get_config().eval
    chosen, score = classification.choose(known, {}, cases, config)
    assert chosen.flip_tta == helps and (score > classification.validate(known, {}, cases)[0]) == helps
    table = classification.slice_table(known, {}, cases[0], flip_tta=True)
    np.testing.assert_allclose(table["logit"], [(1 + other) / 2, (2 + other) / 2])
    config.flip_tta = "off"
    assert not classification.choose(known, {}, cases, config)[0].flip_tta


TRAINING = {grading.FILE: {"encoder": None, "training": [
    {"age": 30.0, "volume_share": 0.1, "label": 0}, {"age": 35.0, "volume_share": None, "label": 0},
    {"age": 60.0, "volume_share": 0.3, "label": 1}, {"age": 65.0, "volume_share": 0.2, "label": 1}]}}  # fmt: skip


def evaluate(cases, files=TRAINING, **thresholds):
    chosen = classification.Thresholds(**thresholds)
    return classification.evaluate(known, {}, iter(cases), chosen, grading.Preparation(None, files))


def test_metrics_and_tables_of_an_evaluation(tmp_path):
    metrics, tables, draw = evaluate(graded(), patient_threshold=0.9)
    json.dumps(metrics, allow_nan=False)
    assert {"slice", "patient", "majority_accuracy", "threshold", "baselines"} <= set(metrics)
    assert all(set(metrics[level]) >= LEVEL for level in ("slice", "patient"))
    assert (metrics["slice"]["n"], metrics["patient"]["n"]) == (8, 4)
    assert (metrics["threshold"], metrics["patient_threshold"]) == (0.5, 0.9)
    assert metrics["patient"]["confusion"] == {"tp": 0, "fp": 0, "fn": 2, "tn": 2}
    assert list(tables["slices"].columns) == ["patient", "slice_index", "tumour_slice", "label", "logit", "probability"]
    table = tables["cases"].set_index("patient")
    assert list(table.loc["A", ["institution", "grade", "age", "label"]]) == ["unknown", 3, 60, 1]
    np.testing.assert_allclose(table["logit"], [1, 2, -1, -3], rtol=1e-6)
    np.testing.assert_allclose(table["probability"], expit(table["logit"]), rtol=1e-6)
    draw(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "roc.png", "precision_recall.png", "reliability.png", "confusion.png"}


def test_the_baselines_are_the_majority_class_and_a_regression():
    metrics, tables, _ = evaluate(graded())
    baselines = metrics["baselines"]
    assert baselines["majority"] == {"accuracy": 0.5}
    assert baselines["age + volume_share"]["n"] == 4
    baseline = tables["cases"].set_index("patient")["baseline"]
    assert baseline["A"] > 0.5 > baseline["B"]
    assert "baseline (age + volume_share), per patient: AUC" in classification.headline(metrics)


@pytest.mark.parametrize("files", [{}, {grading.FILE: {"encoder": None, "training": []}},
                                   {grading.FILE: {"training": TRAINING[grading.FILE]["training"][:2]}}])
def test_without_two_training_classes_there_is_no_regression(files):
    assert set(evaluate(graded(), files)[0]["baselines"]) == {"majority"}


def test_presence_if_every_patient_has_tumour(tmp_path):
    metrics, _, draw = evaluate(presence(), {})
    assert metrics["patient"]["auc"] is None and metrics["slice"]["auc"] == pytest.approx(4 / 6)
    assert "per patient: AUC undefined, accuracy 0.5000 (majority class 1.0000)" in classification.headline(metrics)
    draw(tmp_path)
    assert (tmp_path / "roc.png").exists()


def test_with_one_class_there_are_no_curves(tmp_path):
    _, _, draw = evaluate(graded()[:1], {})
    draw(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"reliability.png", "confusion.png"}


def test_without_a_labelled_patient_an_evaluation_is_an_error():
    with pytest.raises(UserError, match="no patient of this split has a label to score"):
        evaluate([])


def test_pooled_folds(tmp_path):
    """Out of fold: every patient is scored by the network that was not trained on it."""
    rng, folders, everything = np.random.default_rng(0), [], []
    for fold in range(2):
        cases = [case(f"{fold}0{i}", [i % 2] * 3, rng.normal(i % 2, 1, 3), grade=2.0 + i % 2) for i in range(6)]
        _, tables, _ = evaluate(cases)
        folders.append(tmp_path / str(fold))
        folders[-1].mkdir()
        for name, table in tables.items():
            table.to_csv(folders[-1] / f"{name}.csv", index=False)
        everything.append(tables["cases"])
    metrics, tables, draw = classification.pool(folders)
    everything = pd.concat(everything)
    assert list(tables["cases"]["patient"]) == list(everything["patient"]) and len(tables["slices"]) == 36
    expected = roc_auc_score(everything["label"], everything["logit"])
    assert metrics["patient"]["auc"] == pytest.approx(expected) and 0.5 < expected < 1
    assert metrics["patient"]["n"] == 12 and metrics["baselines"]["age + volume_share"]["n"] == 12
    draw(tmp_path)


@pytest.mark.parametrize("threshold", [0.9, 0.2])
def test_a_threshold_in_the_config_is_used(threshold):
    config = grade_resnet50.get_config().eval
    cases = [case(str(i), [i % 2] * 3, np.full(3, i % 2 - 0.5)) for i in range(4)]
    assert expit(-0.5) < classification.choose(known, {}, cases, config)[0].threshold <= expit(0.5)
    config.threshold = threshold
    chosen, _ = classification.choose(known, {}, cases, config)
    assert (chosen.threshold, chosen.patient_threshold) == (threshold, threshold)


def test_a_network_without_a_label_is_refused():
    config = grade_resnet50.get_config()
    classification.check(config)
    config.model.name = "unet"
    with pytest.raises(UserError, match="'unet', grade_head=False does not classify"):
        classification.check(config)


def test_flip_tta_with_a_frozen_backbone_is_refused():
    config = grade_resnet50.get_config()
    assert "backbone" in config.optimizer.frozen
    config.eval.flip_tta = "on"
    with pytest.raises(UserError, match="features of a frozen backbone"):
        classification.check(config)
    config.optimizer.frozen = ()
    classification.check(config)


def test_entries_of_metrics_json_that_describe_the_run():
    config = grade_resnet50.get_config()
    assert classification.about(config) == {"target": "grade", "region": "crop", "masks": "true"}
    config.data.segmentation_workdir = "W"
    assert classification.about(config)["masks"] == "predicted"
