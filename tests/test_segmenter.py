"""Segmentation of a scan with one run or an ensemble."""

import json
import shutil

import numpy as np
import pytest

from lgg_jax.data.cases import prepare_case
from lgg_jax.data.layouts import kaggle
from lgg_jax.data.volume import Volume
from lgg_jax.errors import UserError
from lgg_jax.inference.predictor import Postprocessing, case_probability
from lgg_jax.segmenter import Run, Segmenter, load_segmenter

SCAN = Volume("p", np.zeros((2, 4, 4, 3), np.uint8), None, np.arange(2), {})


class ConstantRun(Run):
    """A run with a constant probability in four pixels, 0.9 in one separate pixel, and 0 elsewhere."""

    def __init__(self, value, **chosen):
        super().__init__(None, {"value": value}, None, Postprocessing(**chosen))

    def probability(self, scan):
        probability = np.zeros(scan.image.shape[:3], np.float32)
        probability[0, :2, :2] = self.variables["value"]
        probability[1, 3, 3] = 0.9
        return probability


def test_an_ensemble_is_the_mean_of_its_probabilities():
    probability = Segmenter([ConstantRun(0.2), ConstantRun(0.6), ConstantRun(0.7)]).probability(SCAN)
    assert probability.dtype == np.float32 and probability.shape == (2, 4, 4)
    np.testing.assert_allclose(probability[0, :2, :2], 0.5, rtol=1e-6)
    assert probability[0, 2:].max() == 0


@pytest.mark.parametrize("thresholds, pixels", [((0.3,), 5), ((0.3, 0.6), 5), ((0.3, 0.8), 1)])
def test_the_mean_threshold(thresholds, pixels):
    segmenter = Segmenter([ConstantRun(0.5, threshold=threshold) for threshold in thresholds])
    assert segmenter.segment(SCAN).sum() == pixels


@pytest.mark.parametrize("choices, pixels", [((True,), 1), ((False,), 5), ((True, True, False), 1), ((True, False), 5)])
def test_the_largest_component_is_kept_if_most_runs_chose_it(choices, pixels):
    segmenter = Segmenter([ConstantRun(0.5, largest_component=choice) for choice in choices])
    mask = segmenter.segment(SCAN)
    assert mask.dtype == bool and mask.sum() == pixels


@pytest.mark.parametrize("choices, pixels", [((True,), 9), ((True, True, False), 9), ((True, False), 8)])
def test_holes_are_filled_if_most_runs_chose_it(choices, pixels):
    ring = np.pad(np.zeros((1, 1, 1), np.float32), [(0, 0), (1, 1), (1, 1)], constant_values=0.9)
    assert Segmenter([ConstantRun(0.5, fill_holes=choice) for choice in choices]).mask(ring, SCAN).sum() == pixels


@pytest.fixture
def other(trained, tmp_path):
    """A copy of the run with other post-processing."""
    workdir = shutil.copytree(trained, tmp_path / "other")
    chosen = json.loads((workdir / "postprocess.json").read_text())
    changed = {"flip_tta": not chosen["flip_tta"], "threshold": 0.25, "finer": [16, 32]}
    (workdir / "postprocess.json").write_text(json.dumps(chosen | changed))
    return workdir


def test_each_run_uses_its_own_postprocessing(trained, other, small_phantoms):
    scan = next(kaggle.load_volumes(small_phantoms))
    one, two, both = (load_segmenter(runs) for runs in ([trained], [other], [trained, other]))
    first, second = one.probability(scan), two.probability(scan)
    assert first.shape == scan.image.shape[:3] and not np.array_equal(first, second), "TTA changes nothing"
    np.testing.assert_array_equal(both.probability(scan), (first + second) / 2)
    run = two.runs[0]
    cases = [prepare_case(scan, run.data, run.data.size + more) for more in (0, 16, 32)]
    grids = [case_probability(run.predict, run.variables, case, run.chosen.flip_tta) for case in cases]
    np.testing.assert_allclose(second, np.mean(grids, axis=0), atol=1e-6)
    assert [run.chosen.threshold for run in both.runs] == [one.runs[0].chosen.threshold, 0.25]


@pytest.mark.parametrize("file, content, expected", [
    ("config.json", {"task": "classification"}, "holds a run of task classification"),
    ("postprocess.json", None, "complete the training first"),
])  # fmt: skip
def test_a_run_that_cannot_segment(file, content, expected, other):
    if content is None:
        (other / file).unlink()
    else:
        (other / file).write_text(json.dumps(json.loads((other / file).read_text()) | content))
    with pytest.raises(UserError, match=expected):
        load_segmenter([str(other)])
