"""Preparation of scans for classification: labels, slices, masks, clinical values, and checks of the config."""

import dataclasses
import json
import math

import ml_collections
import numpy as np
import pytest

from configs import default, grade_resnet50
from lgg_jax import workdir as workdir_lib
from lgg_jax.data import dataset, region, tabular
from lgg_jax.data.mask_features import mask_features
from lgg_jax.data.volume import Volume
from lgg_jax.errors import UserError
from lgg_jax.segmenter import load_segmenter
from lgg_jax.tasks import preparation as grading

SLICES = 5


def data(**fields) -> ml_collections.ConfigDict:
    result = default.get_config().data
    result.update({"size": 16, "target": "grade", "region": "crop", **fields})
    return result


def scan(grade: float | None = 3.0, slices=(1, 3), **clinical) -> Volume:
    """A head with a rectangular tumour in some slices."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 4, (SLICES, 80, 80, 3))
    image[:, 8:72, 8:72] = rng.integers(80, 160, (SLICES, 64, 64, 3))
    mask = np.zeros(image.shape[:3], bool)
    mask[list(slices), 20:40, 30:52] = True
    index = np.arange(1, SLICES + 1, dtype=np.int32)
    return Volume("P", image.astype(np.uint8), mask, index, {"grade": grade, "age": 40.0, **clinical})


def predicted(_scan: Volume) -> np.ndarray:
    mask = np.zeros((SLICES, 80, 80), bool)
    mask[4, 50:60, 50:60] = True
    return mask


@pytest.mark.parametrize("grade, label", [(2.0, 0), (3.0, 1)])
def test_grade_three_is_the_positive_class(grade, label):
    case = grading.Grading(data(), None).prepare(scan(grade))
    np.testing.assert_array_equal(case.labels, [label, label])


def test_for_grade_the_case_has_the_slices_with_tumour():
    case = grading.Grading(data(), None).prepare(scan())
    np.testing.assert_array_equal(case.slice_index, [2, 4])
    assert case.tumour.all()
    assert case.geometry == region.region_geometry(scan(), scan().mask, data())
    expected = region.region_images(scan(), scan().mask, data())[[1, 3]]
    np.testing.assert_array_equal(case.images, expected.astype(np.float16))
    assert case.masks[:, 4:12, 4:12].min() == 255, "the tumour is in the centre of the region"


def test_without_tumour_the_case_has_all_slices():
    case = grading.Grading(data(), None).prepare(scan(slices=()))
    assert len(case.images) == SLICES and not case.tumour.any()


def test_a_patient_without_a_label_has_no_case():
    assert grading.Grading(data(), None).prepare(scan(None)) is None
    no_mask = dataclasses.replace(scan(), mask=None)
    assert grading.Grading(data(target="presence", region="slice"), None).prepare(no_mask) is None


def test_for_presence_every_slice_has_a_label():
    case = grading.Grading(data(target="presence", region="slice"), None).prepare(scan(None))
    np.testing.assert_array_equal(case.labels, [0, 1, 0, 1, 0])
    np.testing.assert_array_equal(case.tumour, [False, True, False, True, False])
    assert case.images.shape == (SLICES, 16, 16, 3) and case.labels.dtype == np.float32


def test_with_a_segmentation_the_ground_truth_mask_is_ignored():
    no_mask = dataclasses.replace(scan(), mask=None)
    case = grading.Grading(data(), predicted).prepare(no_mask)
    np.testing.assert_array_equal(case.slice_index, [5])
    assert case.geometry == region.region_geometry(no_mask, predicted(no_mask), data())
    assert case.scan.clinical["volume_share"] == mask_features(no_mask, predicted(no_mask))["volume_share"]
    for original in (scan(), no_mask):
        again = grading.Grading(data(), predicted).prepare(original)
        np.testing.assert_array_equal(again.images, case.images)
        assert again.scan.mask is original.mask


def test_true_masks_names_the_patients_with_a_ground_truth_mask():
    named = grading.Grading(data(), predicted, frozenset({"P"})).prepare(scan())
    np.testing.assert_array_equal(named.slice_index, [2, 4])
    other = grading.Grading(data(), predicted, frozenset({"Q"})).prepare(scan())
    np.testing.assert_array_equal(other.slice_index, [5])


def test_clinical_values_and_mask_features():
    values = grading.Grading(data(), None).prepare(scan(gender=None)).scan.clinical
    assert (values["age"], values["gender"], values["grade"]) == (40, None, 3)
    assert values["elongation"] == pytest.approx(1 - 20 / 22, abs=0.02)
    assert grading.Grading(data(), None).prepare(scan(slices=())).scan.clinical["elongation"] is None
    presence = grading.Grading(data(target="presence", region="slice"), None).prepare(scan())
    assert presence.scan.clinical["elongation"] is None, "it would reveal the label"


def test_clinical_vector():
    rows = [{"age": 30.0, "gender": 1.0}, {"age": 50.0, "gender": 2.0}]
    encoder = tabular.fit(rows, ("age", "gender"))
    case = grading.Grading(data(), None, encoder=encoder).prepare(scan(age=60.0, gender=None))
    np.testing.assert_allclose(case.clinical, [2, 0, 0, 0, 1])


@pytest.mark.parametrize("fields, message", [
    ({"target": "death"}, "config.data.target='death' is unknown; choose one of presence, grade"),
    ({"region": "box"}, "config.data.region='box' is unknown"),
    ({"train_masks": "none"}, "config.data.train_masks='none' is unknown"),
    ({"target": "presence"}, "the region reveals the label"),
    ({"target": "presence", "region": "masked"}, "the region reveals the label"),
    ({"train_masks": "predicted"}, "config.data.segmentation_workdir names no run"),
    ({"target": "presence", "region": "slice", "tabular": ("age", "solidity")}, "mask features .* reveal the label"),
])  # fmt: skip
def test_check_data_refuses_what_is_not_supported(fields, message):
    with pytest.raises(UserError, match=message):
        grading.check_data(data(**fields))


def test_check_data_accepts_what_is_supported():
    grading.check_data(data())
    grading.check_data(data(train_masks="predicted", segmentation_workdir="W"))
    grading.check_data(data(target="presence", region="slice", tabular=("age",)))


@pytest.fixture
def config(small_phantoms) -> ml_collections.ConfigDict:
    result = grade_resnet50.get_config()
    result.update_from_flattened_dict({"data.dir": str(small_phantoms), "data.size": 16})
    return result


@pytest.fixture
def scans(config) -> dict[str, Volume]:
    return {scan.patient: scan for scan in dataset.load_volumes(config.data)}


def by_patient(names: list[str]) -> dict:
    return {"format": 1, "by": "patient", "train": names[:6], "validation": names[6:8], "test": names[8:]}


def test_a_new_run_fits_to_its_training_patients_alone(config, scans, tmp_path):
    names = sorted(scans)
    prepared = grading.preparation(config, tmp_path, None, by_patient(names))
    content = json.loads(json.dumps(prepared.files[grading.FILE], allow_nan=False))
    known = [scans[name].clinical for name in names[:6] if scans[name].clinical["grade"] is not None]
    assert len(known) < 6, "at least one has no grade"
    assert [row["label"] for row in content["training"]] == [int(values["grade"] == 3) for values in known]
    assert [row["age"] for row in content["training"]] == [values["age"] for values in known]
    ages = [values["age"] for values in known if values["age"] is not None]
    assert content["encoder"]["columns"][0]["name"] == "age"
    assert content["encoder"]["columns"][0]["mean"] == pytest.approx(np.mean(ages))


def test_an_evaluation_prepares_as_the_training_does(config, scans, tmp_path):
    names = sorted(scans)
    new = grading.preparation(config, tmp_path, None, by_patient(names))
    workdir_lib.begin(tmp_path, config, by_patient(names), 10, new.files)
    again = grading.preparation(workdir_lib.read_config(tmp_path), tmp_path, None)
    assert again.files == json.loads(json.dumps(new.files))
    cases = [(new.prepare(scans[name]), again.prepare(scans[name])) for name in names[8:]]
    cases = [pair for pair in cases if pair[0] is not None]
    assert cases
    for before, after in cases:
        assert before.clinical.shape == (12,) and before.clinical.any()
        np.testing.assert_array_equal(after.clinical, before.clinical)
        np.testing.assert_array_equal(after.images, before.images)
    (tmp_path / grading.FILE).unlink()
    with pytest.raises(UserError, match=r"cannot read .*tabular\.json"):
        grading.preparation(config, tmp_path, None)


def test_the_file_of_a_run_that_has_not_started_is_ignored(config, scans, tmp_path):
    (tmp_path / grading.FILE).write_text('{"encoder": {"columns": []}, "training": []}')
    prepared = grading.preparation(config, tmp_path, None, by_patient(sorted(scans)))
    assert prepared.files[grading.FILE]["training"]


def test_presence_without_tabular_needs_no_fit(config, tmp_path):
    config.data.update({"target": "presence", "region": "slice", "tabular": (), "dir": "nowhere"})
    assert grading.preparation(config, tmp_path, None, by_patient([])).files == {}


def test_an_outcome_as_column_is_refused(config, scans, tmp_path):
    config.data.tabular = ("age", "death")
    with pytest.raises(UserError, match="the column death is an outcome"):
        grading.preparation(config, tmp_path, None, by_patient(sorted(scans)))


@pytest.fixture
def two_stage(config, trained) -> ml_collections.ConfigDict:
    config.data.segmentation_workdir = str(trained)
    return config


def graded(scans: dict, names: list[str]) -> Volume:
    """A patient whose two masks differ."""
    return next(scans[name] for name in names if scans[name].clinical["grade"] is not None)


@pytest.mark.parametrize("train_masks", ["true", "predicted"])
def test_masks_in_training_and_evaluation(two_stage, scans, trained, tmp_path, train_masks):
    two_stage.data.train_masks = train_masks
    splits = dataset.resolve_splits(two_stage)
    assert splits == json.loads((trained / "splits.json").read_text()), "the splits of the segmentation"
    segment = load_segmenter([str(trained)]).segment
    prepare = grading.preparation(two_stage, tmp_path, segment, splits).prepare
    training, test = (graded(scans, splits[name]) for name in ("train", "test"))
    for volume in (training, test):
        assert (segment(volume) != volume.mask).any()
    mask = training.mask if train_masks == "true" else segment(training)
    assert share(prepare(training)) == mask_features(training, mask)["volume_share"]
    assert share(prepare(test)) == mask_features(test, segment(test))["volume_share"]
    # In an evaluation, training patients have predicted masks, too.
    workdir_lib.begin(tmp_path, two_stage, splits, 1, grading.preparation(two_stage, tmp_path, segment, splits).files)
    scored = grading.preparation(two_stage, tmp_path, segment).prepare(training)
    assert share(scored) == mask_features(training, segment(training))["volume_share"]


def share(case) -> float:
    value = case.scan.clinical["volume_share"]
    assert value is not None and not math.isnan(value)
    return value


def test_a_segmentation_trained_on_test_patients_is_refused(two_stage, trained, tmp_path):
    names = json.loads((trained / "splits.json").read_text())
    swapped = names | {"train": names["test"] + names["train"][1:], "test": names["train"][:1]}
    (tmp_path / "swapped.json").write_text(json.dumps(swapped))
    two_stage.data.splits = str(tmp_path / "swapped.json")
    with pytest.raises(UserError, match=f"was trained on 1 patients that are tested here.*{names['train'][0]}"):
        dataset.resolve_splits(two_stage)


def test_a_missing_segmentation_is_an_error(two_stage, tmp_path):
    two_stage.data.segmentation_workdir = str(tmp_path / "nothing")
    with pytest.raises(UserError, match=r"cannot read splits from .*nothing/splits\.json"):
        dataset.resolve_splits(two_stage)
