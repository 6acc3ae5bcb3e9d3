import json

import pandas as pd
import pytest

from lgg_jax.data.lgg_mri import list_patients
from lgg_jax.data.splits import make_splits, read_splits, validate_splits, write_splits
from lgg_jax.errors import UserError

SETS = ("train", "validation", "test")


def cohort(count=100):
    """Half of the patients from CS, the rest from DU and HT; grades 2, 3 and every tenth missing."""
    rows = [
        (f"p{i:03d}", ("CS", "DU", "CS", "HT")[i % 4], None if i % 10 == 9 else 2 + i % 3 % 2)
        for i in range(count)
    ]
    return pd.DataFrame(rows, columns=["patient", "institution", "grade"]).astype({"grade": "Float64"})


def test_sets_partition_the_patients_in_the_asked_fractions():
    splits = make_splits(cohort(), seed=0, test_fraction=0.2, validation_fraction=0.1)
    assert [len(splits[name]) for name in SETS] == [70, 10, 20]
    assert sorted(patient for name in SETS for patient in splits[name]) == list(cohort()["patient"])
    assert all(splits[name] == sorted(splits[name]) for name in SETS)
    assert {key: splits[key] for key in ("format", "by", "seed", "folds", "fold")} == {
        "format": 1, "by": "patient", "seed": 0, "folds": 0, "fold": 0,
    }  # fmt: skip


@pytest.mark.parametrize("seed", range(5))
def test_sets_mirror_the_strata(seed):
    patients = cohort()
    splits = make_splits(patients, seed, test_fraction=0.2, validation_fraction=0.2)
    strata = patients.assign(grade=patients["grade"].fillna(0)).groupby(["institution", "grade"])["patient"]
    for _, members in strata:
        for name in ("test", "validation"):
            assert abs(len(set(members) & set(splits[name])) - 0.2 * len(members)) < 2


def test_depends_on_the_seed_and_not_on_the_order_of_rows():
    patients = cohort()
    splits = make_splits(patients, 3, 0.2, 0.1)
    assert splits == make_splits(patients.sample(frac=1, random_state=0), 3, 0.2, 0.1)
    assert splits["test"] != make_splits(patients, 4, 0.2, 0.1)["test"]


def test_the_split_of_a_seed_stays_what_it_was():
    splits = make_splits(cohort(12), seed=0, test_fraction=0.25, validation_fraction=0.25)
    assert (splits["test"], splits["validation"]) == (["p002", "p004", "p011"], ["p003", "p006", "p009"])


def test_folds_test_each_patient_once():
    folds = [make_splits(cohort(), 0, 0.0, 0.1, folds=5, fold=fold) for fold in range(5)]
    assert sorted(patient for splits in folds for patient in splits["test"]) == list(cohort()["patient"])
    assert all([len(splits[name]) for name in SETS] == [70, 10, 20] for splits in folds)


def test_strata_of_one_patient_and_no_grades():
    patients = pd.DataFrame({
        "patient": list("abcdef"), "institution": list("uvwxyz"), "grade": pd.array([None] * 6, dtype="Float64"),
    })  # fmt: skip
    splits = make_splits(patients, 0, 0.01, 0.01)
    assert [len(splits[name]) for name in SETS] == [4, 1, 1]


def test_no_test_patients_when_none_are_asked_for():
    assert make_splits(cohort(), 0, 0.0, 0.1)["test"] == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((1.0, 0.1), "fractions between 0 and 1"),
        ((0.2, 0.0), "fractions between 0 and 1"),
        ((0.9, 0.9), "train has no patients"),
        ((0.2, 0.1, 1), "1 folds"),
        ((0.2, 0.1, 101), "pass 0 or 2 to 100 folds"),
        ((0.2, 0.1, 5, 5), "no fold 5 of 5"),
        ((0.2, 0.1, 5, -1), "no fold -1"),
    ],
)
def test_impossible_requests(arguments, message):
    with pytest.raises(UserError, match=message):
        make_splits(cohort(), 0, *arguments)


def test_written_and_read_back(tmp_path):
    splits = make_splits(cohort(), 0, 0.2, 0.1)
    write_splits(tmp_path / "new" / "splits.json", splits)
    assert read_splits(tmp_path / "new" / "splits.json") == splits
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["splits.json"]


def test_a_failed_write_leaves_the_earlier_file(tmp_path):
    path = tmp_path / "splits.json"
    write_splits(path, {"whole": 1})
    with pytest.raises(TypeError):
        write_splits(path, {"not JSON": object()})
    assert json.loads(path.read_text()) == {"whole": 1}


def valid(**changes):
    return {"format": 1, "by": "patient", "train": ["a"], "validation": ["b"], "test": ["c"]} | changes


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
        (valid(test="c"), "test is no list"),
        (valid(format=2), "not a split by patient"),
        (valid(by="slice"), "not a split by patient"),
        ([], "not a split by patient"),
    ],
)
def test_refused(splits, message):
    with pytest.raises(UserError, match=message):
        validate_splits(splits, ["a", "b", "c"])


def test_accepted():
    validate_splits(valid(test=[]), ["a", "b", "c", "d"])


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
