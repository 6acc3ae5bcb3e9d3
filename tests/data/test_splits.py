"""Splits by patient, by fold and by slice: sizes, strata, leaks, files, and the config fields that choose them."""

import numpy as np
import pandas as pd
import pytest

from configs import default
from lgg_jax import tasks
from lgg_jax.data import dataset
from lgg_jax.data.layouts.kaggle import list_patients
from lgg_jax.data.splits import (
    make_slice_splits,
    make_splits,
    members,
    read_splits,
    rows,
    validate_splits,
)
from lgg_jax.errors import UserError
from lgg_jax.workdir import write_json

SETS = ("train", "validation", "test")


def cohort(count=100):
    """Half of the patients are from CS, the rest from DU and HT. Grades are 2 and 3; every tenth is missing."""
    rows = [
        (f"p{i:03d}", ("CS", "DU", "CS", "HT")[i % 4], None if i % 10 == 9 else 2 + i % 3 % 2)
        for i in range(count)
    ]
    return pd.DataFrame(rows, columns=["patient", "institution", "grade"]).astype({"grade": "Float64"})


def test_sets_partition_the_patients_in_the_given_fractions():
    splits = make_splits(cohort(), seed=0, test_fraction=0.2, validation_fraction=0.1)
    assert [len(splits[name]) for name in SETS] == [70, 10, 20]
    assert sorted(patient for name in SETS for patient in splits[name]) == list(cohort()["patient"])
    assert all(splits[name] == sorted(splits[name]) for name in SETS)
    assert {key: splits[key] for key in ("format", "by", "seed", "folds", "fold")} == {
        "format": 1, "by": "patient", "seed": 0, "folds": 0, "fold": 0,
    }  # fmt: skip


@pytest.mark.parametrize("seed", range(5))
def test_sets_represent_the_strata_in_proportion(seed):
    patients = cohort()
    splits = make_splits(patients, seed, test_fraction=0.2, validation_fraction=0.2)
    strata = patients.assign(grade=patients["grade"].fillna(0)).groupby(["institution", "grade"])["patient"]
    for _, stratum in strata:
        for name in ("test", "validation"):
            assert abs(len(set(stratum) & set(splits[name])) - 0.2 * len(stratum)) < 2


def test_the_split_depends_on_the_seed_and_not_on_the_order_of_rows():
    patients = cohort()
    splits = make_splits(patients, 3, 0.2, 0.1)
    assert splits == make_splits(patients.sample(frac=1, random_state=0), 3, 0.2, 0.1)
    assert splits["test"] != make_splits(patients, 4, 0.2, 0.1)["test"]


def test_the_split_of_a_seed_does_not_change_between_versions():
    splits = make_splits(cohort(12), seed=0, test_fraction=0.25, validation_fraction=0.25)
    assert (splits["test"], splits["validation"]) == (["p002", "p004", "p011"], ["p003", "p006", "p009"])


def test_each_patient_is_in_the_test_set_of_one_fold():
    folds = [make_splits(cohort(), 0, 0.0, 0.1, folds=5, fold=fold) for fold in range(5)]
    assert sorted(patient for splits in folds for patient in splits["test"]) == list(cohort()["patient"])
    assert all([len(splits[name]) for name in SETS] == [70, 10, 20] for splits in folds)


def test_strata_of_one_patient_and_no_grades():
    patients = pd.DataFrame({
        "patient": list("abcdef"), "institution": list("uvwxyz"), "grade": pd.array([None] * 6, dtype="Float64"),
    })  # fmt: skip
    splits = make_splits(patients, 0, 0.01, 0.01)
    assert [len(splits[name]) for name in SETS] == [4, 1, 1]


def test_a_test_fraction_of_zero_gives_an_empty_test_set():
    assert make_splits(cohort(), 0, 0.0, 0.1)["test"] == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((1.0, 0.1), "train has no patients"),
        ((0.2, 0.0), "validation has no patients"),
        ((0.9, 0.9), "train has no patients"),
        ((0.2, 0.1, 1), "1 folds"),
        ((0.2, 0.1, 101), "set 0 or 2 to 100 folds"),
        ((0.2, 0.1, 5, 5), "no fold 5 of 5"),
        ((0.2, 0.1, 5, -1), "no fold -1"),
    ],
)
def test_impossible_fractions_and_folds(arguments, message):
    with pytest.raises(UserError, match=message):
        make_splits(cohort(), 0, *arguments)


def test_written_and_read_back(tmp_path):
    splits = make_splits(cohort(), 0, 0.2, 0.1)
    write_json(tmp_path / "new" / "splits.json", splits)
    assert read_splits(tmp_path / "new" / "splits.json") == splits
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["splits.json"]


def valid(**changes):
    return {"format": 1, "by": "patient", "train": ["a"], "validation": ["b"], "test": ["c"]} | changes


def by_slice(**changes):
    return valid(by="slice", train=["a:1", "a:2"], validation=["a:3"], test=["a:4", "b:1"]) | changes


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        (valid(train=["a", "c"]), "patient c is both in train and in test"),
        (valid(validation=["a"]), "patient a is both in train and in validation"),
        (valid(test=["b"]), "patient b is both in validation and in test"),
        (valid(train=["a", "a"]), "train has patient a twice"),
        (valid(train=[]), "train has no patients"),
        (valid(validation=[]), "validation has no patients"),
        (valid(test=["d"]), "not in the data: d"),
        (valid(test="c"), "test is not a list"),
        (valid(format=2), "not a split of format 1"),
        (valid(by="volume"), "not a split of format 1"),
        ([], "not a split of format 1"),
        (valid(by="slice"), "train has an entry without slice number"),
        (by_slice(train=["a:1", "c:3"], test=["c:3"]), "c:3 is both in train and in test"),
        (by_slice(test=["d:3"]), "not in the data: d"),
        (by_slice(train=["a:1", "a:1"]), "train has patient a:1 twice"),
    ],
)
def test_invalid_splits(splits, message):
    with pytest.raises(UserError, match=message):
        validate_splits(splits, ["a", "b", "c"])


def test_valid_splits():
    validate_splits(valid(test=[]), ["a", "b", "c", "d"])
    validate_splits(by_slice(), ["a", "b"])


SLICES = {f"p{i}": list(range(1, 31)) for i in range(4)}


def test_single_slices_are_assigned_to_the_sets():
    splits = make_slice_splits(SLICES, 0, 0.2, 0.1)
    assert splits["by"] == "slice" and [len(splits[name]) for name in SETS] == [84, 12, 24]
    entries = [entry for name in SETS for entry in splits[name]]
    assert sorted(entries) == sorted(f"{patient}:{i}" for patient in SLICES for i in SLICES[patient])
    assert all(set(members(splits, name)) == set(SLICES) for name in ("train", "test")), "every patient is in both sets"
    assert splits == make_slice_splits(dict(reversed(SLICES.items())), 0, 0.2, 0.1)
    assert splits["test"] != make_slice_splits(SLICES, 1, 0.2, 0.1)["test"]


@pytest.mark.parametrize("arguments, message", [
    ((1.0, 0.1), "train has no patients"), ((0.2, 1e-3), "validation has no patients"),
])  # fmt: skip
def test_impossible_fractions_of_slices(arguments, message):
    with pytest.raises(UserError, match=message):
        make_slice_splits(SLICES, 0, *arguments)


def test_members_and_their_rows():
    index = np.array([4, 5, 6])
    assert members(valid(), "train") == {"a": None} and members(valid(test=[]), "test") == {}
    np.testing.assert_array_equal(rows(None, index), [True, True, True])
    numbers = members(by_slice(test=["a:4", "b:10", "x:y:6", "a:6"]), "test")
    assert numbers == {"a": {4, 6}, "b": {10}, "x:y": {6}}
    np.testing.assert_array_equal(rows(numbers["a"], index), [True, False, True])
    np.testing.assert_array_equal(rows(numbers["b"], index), [False, False, False])


def config(data_dir, **fields):
    result = default.get_config()
    result.task = "classification"
    result.data.update({"dir": str(data_dir), **fields})
    return result


def test_a_split_by_slice_prints_that_scores_are_biased(small_phantoms, capsys):
    splits = dataset.resolve_splits(config(small_phantoms, split_by="slice"))
    assert "the scores of this run are biased upward" in capsys.readouterr().out
    patients = set(list_patients(small_phantoms)["patient"])
    assert set(members(splits, "train")) == set(members(splits, "test")) == patients
    shared = members(splits, "train"), members(splits, "test")
    assert not any(shared[0][patient] & shared[1][patient] for patient in patients)
    dataset.resolve_splits(config(small_phantoms))
    assert capsys.readouterr().out == ""


def test_segmentation_refuses_a_split_by_slice(small_phantoms, tmp_path):
    by_slice = config(small_phantoms, split_by="slice")
    write_json(tmp_path / "splits.json", dataset.resolve_splits(by_slice))
    from_file = config(small_phantoms, splits=str(tmp_path / "splits.json"))
    assert dataset.resolve_splits(from_file)["by"] == "slice"
    for refused in (by_slice, from_file):
        refused.task = "segmentation"
        with pytest.raises(UserError, match=r"a split by slice with config\.task=segmentation"):
            tasks.check_splits(dataset.resolve_splits(refused), refused)


def test_folds_of_the_config_must_equal_those_of_the_splits_file(small_phantoms, tmp_path):
    """Otherwise the results of a run would be pooled under the wrong fold."""
    path = str(tmp_path / "splits.json")
    write_json(tmp_path / "splits.json", dataset.resolve_splits(config(small_phantoms, folds=3, fold=1)))
    splits = dataset.resolve_splits(config(small_phantoms, splits=path))
    assert splits == dataset.resolve_splits(config(small_phantoms, splits=path, folds=3, fold=1))
    for other in ({"folds": 3}, {"folds": 4, "fold": 1}):
        with pytest.raises(UserError, match=r"the split of .*splits\.json has folds=3 and fold=1"):
            dataset.resolve_splits(config(small_phantoms, splits=path, **other))
    with pytest.raises(UserError, match=r"folds=3 with named validation_patients or split_by"):
        dataset.resolve_splits(config(small_phantoms, folds=3, split_by="slice"))


def test_unknown_split_by(small_phantoms):
    with pytest.raises(UserError, match="split_by='hospital' is unknown; use 'patient' or 'slice'"):
        dataset.resolve_splits(config(small_phantoms, split_by="hospital"))


@pytest.mark.parametrize("content", ["", "{", "[]", '{"format": 1}'])
def test_unreadable_files(tmp_path, content):
    path = tmp_path / "splits.json"
    with pytest.raises(UserError, match="cannot read"):
        read_splits(path)
    path.write_text(content)
    with pytest.raises(UserError, match=r"splits\.json"):
        read_splits(path)


def test_real_patients(real_data):
    patients = list_patients(real_data)
    splits = make_splits(patients, 0, 0.2, 0.1)
    assert [len(splits[name]) for name in SETS] == [61, 9, 18]
    grades = patients.set_index("patient")["grade"]
    assert 8 <= (grades[splits["test"]] == 3).sum() <= 11
