"""Training, validation and test sets: made once, then stored as JSON.

    splits = make_splits(list_patients("kaggle_3m"), seed=0, test_fraction=0.2, validation_fraction=0.1)
    workdir.write_json(Path("splits.json"), splits)
    splits = read_splits("splits.json")                                  # validated
"""

import hashlib
import itertools
import json
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from lgg_jax.errors import UserError

FORMAT = 1
SETS = ("train", "validation", "test")


def make_splits(
    patients: pd.DataFrame, seed: int, test_fraction: float, validation_fraction: float, folds: int = 0, fold: int = 0
) -> dict:
    """Assign patients to the training, validation and test sets, stratified by institution and grade.

    Patients are sorted by stratum (a missing grade counts as a grade) and, within a stratum, by a hash of seed and
    patient. A set consists of evenly spaced patients of this order. Therefore each set represents all strata in
    proportion, even rare ones, and the result depends only on the seed and the patients.

    Args:
      patients: table with the columns patient, institution, grade (`list_patients` of a layout).
      seed: seed of the split.
      test_fraction, validation_fraction: fractions of all patients, in [0, 1). test_fraction is ignored with folds.
      folds: number k of cross-validation folds, or 0. Each patient is in the test set of exactly one fold.
      fold: index of the fold, from 0 to k - 1.

    Returns:
      {"format", "by", "seed", "folds", "fold", "train", "validation", "test"}; the last three are sorted patient ids.

    Raises:
      UserError: the folds are impossible, or the training or validation set is empty.
    """
    _check_folds(len(patients), folds, fold)
    everyone = _ordered(patients, f"{seed}")
    test = everyone[fold::folds] if folds else _evenly_spaced(everyone, test_fraction * len(everyone), f"{seed}")
    rest = patients[~patients["patient"].isin(test)]
    purpose = f"{seed} validation {folds} {fold}"
    validation = _evenly_spaced(_ordered(rest, purpose), validation_fraction * len(everyone), purpose)
    train = set(rest["patient"]) - set(validation)
    splits = {
        "format": FORMAT, "by": "patient", "seed": seed, "folds": folds, "fold": fold,
        "train": sorted(train), "validation": sorted(validation), "test": sorted(test),
    }  # fmt: skip
    validate_splits(splits, patients["patient"])
    return splits


def splits_by_validation(patients: pd.DataFrame, validation: Iterable[str]) -> dict:
    """Put the patients named in `validation` into the validation set and all others into the training set.

    The test set is empty. Names that are not among `patients` are ignored.
    """
    everyone = set(patients["patient"])
    validation = everyone & set(validation)
    splits = {
        "format": FORMAT, "by": "patient",
        "train": sorted(everyone - validation), "validation": sorted(validation), "test": [],
    }  # fmt: skip
    validate_splits(splits, everyone)
    return splits


def make_slice_splits(
    slices: dict[str, list[int]], seed: int, test_fraction: float, validation_fraction: float
) -> dict:
    """Assign single slices to the sets, to measure the leak: slices of one patient can be in all three sets.

    Args:
      slices: {patient: slice numbers}.
      seed: seed of the split.
      test_fraction, validation_fraction: fractions of all slices.

    Returns:
      As `make_splits`, without folds. An entry of a set is "patient:slice number".
    """
    everything = [f"{patient}:{number}" for patient, numbers in slices.items() for number in numbers]
    everything.sort(key=lambda entry: _hash(f"{seed} {entry}"))
    test, validation = (round(fraction * len(everything)) for fraction in (test_fraction, validation_fraction))
    splits = {
        "format": FORMAT, "by": "slice", "seed": seed, "train": sorted(everything[test + validation :]),
        "validation": sorted(everything[test : test + validation]), "test": sorted(everything[:test]),
    }  # fmt: skip
    validate_splits(splits, slices)
    return splits


def members(splits: dict, name: str) -> dict[str, set[int] | None]:
    """The members of a set: {patient: slice numbers}, with None for all slices of a patient."""
    if splits["by"] == "patient":
        return dict.fromkeys(splits[name])
    numbers: dict[str, set[int]] = {}
    for entry in splits[name]:
        patient, number = entry.rsplit(":", 1)
        numbers.setdefault(patient, set()).add(int(number))
    return numbers


def rows(numbers: set[int] | None, slice_index: np.ndarray) -> np.ndarray:
    """Which slices of a patient are in a set: (slice,) bool.

    Args:
      numbers: slice numbers of the patient, as `members` returns them.
      slice_index: (slice,) number of each slice of the patient.
    """
    return np.ones(len(slice_index), bool) if numbers is None else np.isin(slice_index, list(numbers))


def _check_folds(count: int, folds: int, fold: int) -> None:
    if folds and not 2 <= folds <= count:
        raise UserError(f"cannot split {count} patients into {folds} folds", f"set 0 or 2 to {count} folds")
    if not 0 <= fold < max(folds, 1):
        raise UserError(f"there is no fold {fold} of {folds} folds", "set config.data.fold; folds are numbered from 0")


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def _ordered(patients: pd.DataFrame, purpose: str) -> list[str]:
    grades = patients["grade"].fillna(-1).astype(float)
    rows = zip(patients["institution"], grades, patients["patient"], strict=True)
    return [patient for *_, patient in sorted(rows, key=lambda row: (*row[:2], _hash(f"{purpose} {row[2]}")))]


def _evenly_spaced(ordered: list[str], count: float, purpose: str) -> list[str]:
    """About `count` evenly spaced entries, at least one if `count` > 0. The start is a hash of `purpose`."""
    count = min(max(round(count), int(count > 0)), len(ordered))
    start = _hash(purpose) / 2**64
    return [ordered[int((i + start) * len(ordered) / count)] for i in range(count)]


def read_splits(path) -> dict:
    """Read and validate a splits file; UserError if it is missing, is not JSON or is not a valid split."""
    remedy = "pass the splits.json of a run directory"
    try:
        splits = json.loads(Path(path).read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read splits from {path} ({error})", remedy) from error
    validate_splits(splits, where=str(path))
    return splits


def validate_splits(splits: dict, patients: Iterable[str] | None = None, where: str = "splits") -> None:
    """Raise UserError if a split is invalid.

    A split is invalid if its format is unknown, its sets overlap, its training or validation set is empty, or it names
    a patient that is not in the data.

    Args:
      splits: the split.
      patients: the patients in the data; None skips this check.
      where: file of the split, for messages.
    """
    remedy = f'expected {{"format": {FORMAT}, "by": "patient", "train": [ids], "validation": [ids], "test": [ids]}}'
    if not isinstance(splits, dict) or splits.get("format") != FORMAT or splits.get("by") not in ("patient", "slice"):
        raise UserError(f"{where}: not a split of format {FORMAT}", remedy)
    for name in SETS:
        _check_set(splits.get(name), f"{where}: {name}", remedy)
        if splits["by"] == "slice" and not all(re.fullmatch(r".+:\d+", entry) for entry in splits[name]):
            raise UserError(f"{where}: {name} has an entry without slice number", 'write "patient:slice number"')
    for first, second in itertools.combinations(SETS, 2):
        for patient in sorted(set(splits[first]) & set(splits[second])):
            wrong = f"{where}: patient {patient} is both in {first} and in {second}"
            raise UserError(wrong, "leave each patient in one set")
    for name in ("train", "validation"):
        if not splits[name]:
            remedy = "change config.data.test_fraction, validation_fraction, folds or validation_patients"
            raise UserError(f"{where}: {name} has no patients", remedy)
    if patients is not None:
        unknown = sorted({patient for name in SETS for patient in members(splits, name)} - set(patients))
        if unknown:
            raise UserError(f"{where}: patients that are not in the data: {', '.join(unknown[:5])}", "make a new split")


def _check_set(ids, where: str, remedy: str) -> None:
    if not isinstance(ids, list) or not all(isinstance(patient, str) for patient in ids):
        raise UserError(f"{where} is not a list of patient ids", remedy)
    if len(set(ids)) < len(ids):
        raise UserError(f"{where} has patient {max(ids, key=ids.count)} twice", "name each patient once")
