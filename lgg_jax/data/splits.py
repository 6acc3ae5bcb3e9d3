"""Which patients train, validate and test: data written down as JSON, not code.

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
    """Patients dealt to train, validation and test, stratified by institution and grade.

    Patients are ordered by stratum (a missing grade is one more grade) and within it by a hash of seed and patient;
    a set takes every so-manyth of that order. So each set mirrors the strata however rare they are, and the outcome
    depends on nothing but the seed and the patients.

    Args:
      patients: columns patient, institution, grade (`lgg_mri.list_patients`).
      seed: another seed, another split.
      test_fraction, validation_fraction: of all patients, in [0, 1). test_fraction is not used with folds.
      folds: 0, or the number k of folds: fold 0…k-1 is the test set, each patient in exactly one of them.
      fold: which of them.

    Returns:
      {"format", "by", "seed", "folds", "fold", "train", "validation", "test"}; the last three sorted patient ids.
    """
    _check_folds(len(patients), folds, fold)
    everyone = _ordered(patients, f"{seed}")
    test = everyone[fold::folds] if folds else _spread(everyone, test_fraction * len(everyone), f"{seed}")
    rest = patients[~patients["patient"].isin(test)]
    purpose = f"{seed} validation {folds} {fold}"
    validation = _spread(_ordered(rest, purpose), validation_fraction * len(everyone), purpose)
    train = set(rest["patient"]) - set(validation)
    splits = {
        "format": FORMAT, "by": "patient", "seed": seed, "folds": folds, "fold": fold,
        "train": sorted(train), "validation": sorted(validation), "test": sorted(test),
    }  # fmt: skip
    validate_splits(splits, patients["patient"])
    return splits


def splits_by_validation(patients: pd.DataFrame, validation: Iterable[str]) -> dict:
    """The named patients, as far as they are among `patients`, validate; all others train; the test set is empty."""
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
    """Slices dealt to the sets one by one, so that every patient may be in all of them: this leaks.

    It shows by how much. Entries are "patient:slice", with the slice's number in its file name.

    Args:
      slices: {patient: slice numbers}.
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
    """Who is in a set: {patient: the numbers of its slices there, None for all of them}."""
    if splits["by"] == "patient":
        return dict.fromkeys(splits[name])
    found: dict[str, set[int]] = {}
    for entry in splits[name]:
        patient, number = entry.rsplit(":", 1)
        found.setdefault(patient, set()).add(int(number))
    return found


def rows(numbers: set[int] | None, slice_index: np.ndarray) -> np.ndarray:
    """(slice,) bool: which of a patient's slices are members, by `members`' numbers."""
    return np.ones(len(slice_index), bool) if numbers is None else np.isin(slice_index, list(numbers))


def _check_folds(count: int, folds: int, fold: int) -> None:
    if folds and not 2 <= folds <= count:
        raise UserError(f"cannot deal {count} patients into {folds} folds", f"pass 0 or 2 to {count} folds")
    if not 0 <= fold < max(folds, 1):
        raise UserError(f"there is no fold {fold} of {folds}", "count folds from 0")


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def _ordered(patients: pd.DataFrame, purpose: str) -> list[str]:
    grades = patients["grade"].fillna(-1).astype(float)
    rows = zip(patients["institution"], grades, patients["patient"], strict=True)
    return [patient for *_, patient in sorted(rows, key=lambda row: (*row[:2], _hash(f"{purpose} {row[2]}")))]


def _spread(ordered: list[str], count: float, purpose: str) -> list[str]:
    """About `count` (at least one, if above 0) evenly spaced entries, from a start that follows from `purpose`."""
    count = min(max(round(count), int(count > 0)), len(ordered))
    start = _hash(purpose) / 2**64
    return [ordered[int((i + start) * len(ordered) / count)] for i in range(count)]


def read_splits(path) -> dict:
    """A validated splits file; UserError when it is missing, no JSON or not a split."""
    remedy = "pass the splits.json of a run directory"
    try:
        splits = json.loads(Path(path).read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read splits from {path} ({error})", remedy) from error
    validate_splits(splits, where=str(path))
    return splits


def validate_splits(splits: dict, patients: Iterable[str] | None = None, where: str = "splits") -> None:
    """Refuses a split that leaks, lacks a set or, given `patients`, names one that is not among them.

    `where` opens the message: the file that the splits came from.
    """
    remedy = f'expected {{"format": {FORMAT}, "by": "patient", "train": [ids], "validation": [ids], "test": [ids]}}'
    if not isinstance(splits, dict) or splits.get("format") != FORMAT or splits.get("by") not in ("patient", "slice"):
        raise UserError(f"{where}: not a split of format {FORMAT}", remedy)
    for name in SETS:
        _check_set(splits.get(name), f"{where}: {name}", remedy)
        if splits["by"] == "slice" and not all(re.fullmatch(r".+:\d+", entry) for entry in splits[name]):
            raise UserError(f"{where}: {name} has an entry that names no slice", 'write "patient:slice number"')
    for first, second in itertools.combinations(SETS, 2):
        for patient in sorted(set(splits[first]) & set(splits[second])):
            wrong = f"{where}: patient {patient} is both in {first} and in {second}"
            raise UserError(wrong, "leave each patient in one set")
    for name in ("train", "validation"):
        if not splits[name]:
            remedy = "change config.data's fractions, folds or validation_patients, whichever made the split"
            raise UserError(f"{where}: {name} has no patients", remedy)
    if patients is not None:
        unknown = sorted({patient for name in SETS for patient in members(splits, name)} - set(patients))
        if unknown:
            raise UserError(f"{where}: patients that are not in the data: {', '.join(unknown[:5])}", "make new splits")


def _check_set(ids, where: str, remedy: str) -> None:
    if not isinstance(ids, list) or not all(isinstance(patient, str) for patient in ids):
        raise UserError(f"{where} is no list of patient ids", remedy)
    if len(set(ids)) < len(ids):
        raise UserError(f"{where} has patient {max(ids, key=ids.count)} twice", "name each patient once")
