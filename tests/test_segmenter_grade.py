"""The grade of a scan from its mask and clinical values, with one run or an ensemble."""

import json

import numpy as np
import pytest
from ml_collections import ConfigDict
from scan_files import IMAGE, MASK
from scipy.special import expit

from configs import default
from lgg_jax.data import tabular
from lgg_jax.data.volume import SEQUENCES, Volume
from lgg_jax.errors import UserError
from lgg_jax.segmenter import Grader, load_grader
from lgg_jax.tasks import classification, joint
from lgg_jax.tasks.preparation import Grading, GradingRun

SCAN = Volume("p", IMAGE, None, np.arange(1, 7, dtype=np.int32), {"age": 40.0, "gender": None})
DATA = ConfigDict({"target": "grade", "region": "crop", "channels": SEQUENCES[:3], "size": 16, "crop": True})
AGE = tabular.fit([{"age": 30.0}, {"age": 50.0}], ("age",))


def run(predict=None, threshold=0.5, encoder=AGE) -> GradingRun:
    """Return `classification.grading_run` of a workdir with this encoder."""
    chosen = classification.Thresholds(patient_threshold=threshold)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(classification, "restored", lambda *_: Grading(DATA, None, encoder=encoder))
        return classification.grading_run(ConfigDict({"data": DATA}), None, predict or by_age, {}, chosen)


def by_age(_variables, images, clinical):
    """Return the encoded age as the logit, or -5 if the age is missing."""
    return np.where(clinical[:, 1] > 0, -5, clinical[:, 0]).astype(np.float32)


def constant(logit):
    return lambda _variables, images, _clinical: np.full(len(images), logit, np.float32)


def test_the_mean_over_the_slices_with_tumour():
    shapes = []

    def slice_number(_variables, images, _clinical):
        shapes.append(images.shape)
        return np.arange(len(images), dtype=np.float32)

    graded = Grader([run(slice_number)]).grade(SCAN, MASK, {})
    assert shapes == [(3, 16, 16, 3)] and MASK.any(axis=(1, 2)).sum() == 3
    assert graded["grade_3_probability"] == pytest.approx(expit(1.0))


@pytest.mark.parametrize("values, logit", [({}, 0), ({"age": 60.0}, 2), ({"age": None}, -5), ({"gender": 1.0}, 0)])
def test_passed_values_replace_those_of_the_scan(values, logit):
    graded = Grader([run()]).grade(SCAN, MASK, values)
    assert graded["grade_3_probability"] == pytest.approx(expit(logit))


def test_a_run_without_clinical_values():
    def none(_variables, images, clinical):
        assert clinical.shape == (len(images), 0)
        return np.zeros(len(images), np.float32)

    assert Grader([run(none, encoder=None)]).grade(SCAN, MASK, {"age": 3.0})["grade_3_probability"] == 0.5


@pytest.mark.parametrize("logits, thresholds, grade", [
    ([0.0], [0.5], 3), ([-0.1], [0.5], 2), ([-0.1], [0.4], 3), ([-800.0], [0.5], 2),
    ([3.0, -1.0], [0.5, 0.9], 3), ([3.0, -1.0], [0.9, 0.9], 2),
])  # fmt: skip
def test_an_ensemble_is_the_mean_of_its_logits_and_thresholds(logits, thresholds, grade):
    runs = [run(constant(logit), threshold) for logit, threshold in zip(logits, thresholds, strict=True)]
    expected = {"grade_3_probability": pytest.approx(expit(np.mean(logits)), abs=1e-7), "grade": grade}
    assert Grader(runs).grade(SCAN, MASK, {}) == expected


def test_an_empty_mask_has_no_grade():
    assert Grader([run()]).grade(SCAN, np.zeros_like(MASK), {}) == {"grade_3_probability": None, "grade": None}


def test_a_joint_run_grades_with_the_passed_mask():
    def slice_number(_variables, images, clinical):
        assert clinical.shape == (len(IMAGE), 0) and images.shape == (len(IMAGE), 16, 16, 3)
        return {"mask": np.zeros(images.shape[:3]), "label": np.arange(len(images), dtype=np.float32)}

    data = default.get_config().data
    data.size = 16
    joint_run = joint.grading_run(ConfigDict({"data": data}), None, slice_number, {}, None)
    graded = Grader([joint_run]).grade(SCAN, MASK, {"age": 3.0})
    logit = np.flatnonzero(MASK.any(axis=(1, 2))).mean()
    assert graded == {"grade_3_probability": pytest.approx(expit(logit)), "grade": 3}


@pytest.mark.parametrize("config", [
    {"task": "segmentation", "data": {}}, {"task": "classification", "data": {"target": "presence"}},
])  # fmt: skip
def test_a_run_that_does_not_grade(config, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="holds a run that does not grade"):
        load_grader([str(tmp_path)])
