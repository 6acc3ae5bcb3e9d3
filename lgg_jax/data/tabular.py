"""Clinical values and mask features as the vector that a network takes, with what is missing marked as missing.

    encoder = fit(training_rows, ("age", "gender", "irregularity"))    # statistics of the training patients alone
    vector = encoder.encode({"age": 43.0, "gender": None})             # (encoder.width,) float32
    path.write_text(json.dumps(encoder.to_dict()))                     # and Encoder.from_dict to read it

A number becomes (value - mean) / deviation, a category one of n ones; behind each stands an indicator that is 1, with
zeros before it, where the value is missing. So no patient is dropped, and none is given a value that it does not have.
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping

import numpy as np

from lgg_jax.data.clinical import FIELDS
from lgg_jax.data.mask_features import FEATURES
from lgg_jax.errors import UserError

CATEGORIES = ("gender", "laterality", "tumor_location", "histological_type", "race", "ethnicity")  # codes, not amounts
PATHOLOGY = ("histological_type",)  # read from the specimen that the grade is read from: never a column by default
OUTCOMES = ("death",)  # later than any scan


@dataclasses.dataclass(frozen=True)
class Column:
    """What one value is encoded by.

    Attributes:
      name: of clinical.FIELDS or mask_features.FEATURES.
      mean, deviation: of a number among the training patients; 0 for a category.
      categories: those seen in training, ascending; empty for a number.
    """

    name: str
    mean: float
    deviation: float
    categories: tuple[float, ...]

    @property
    def width(self) -> int:
        return (len(self.categories) if self.name in CATEGORIES else 1) + 1

    def encode(self, value: float | None) -> np.ndarray:
        """(width,) float32; a value that training could not learn from counts as missing.

        That is an unseen category, and a number that was missing or the same in all of the training patients.
        """
        vector = np.zeros(self.width, np.float32)
        if _known(value) and value in self.categories:
            vector[self.categories.index(value)] = 1
        elif _known(value) and self.deviation > 0:
            vector[0] = (value - self.mean) / self.deviation
        else:
            vector[-1] = 1
        return vector


@dataclasses.dataclass(frozen=True)
class Encoder:
    """The columns of the vector, in order."""

    columns: tuple[Column, ...]

    @property
    def width(self) -> int:
        return sum(column.width for column in self.columns)

    def encode(self, values: Mapping[str, float | None]) -> np.ndarray:
        """(width,) float32; a column that `values` lacks, or holds as None or NaN, is missing."""
        parts = [column.encode(values.get(column.name)) for column in self.columns]
        return np.concatenate([np.zeros(0, np.float32), *parts])

    def to_dict(self) -> dict:
        """Plain values, for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, saved: dict) -> "Encoder":
        """The encoder that `to_dict` gave, also after JSON made lists of its tuples."""
        return cls(tuple(Column(**column | {"categories": tuple(column["categories"])}) for column in saved["columns"]))


def fit(rows: Iterable[Mapping[str, float | None]], columns: tuple[str, ...]) -> Encoder:
    """The encoder of `columns` by the values of the training patients.

    Args:
      rows: one mapping a patient, such as `scan.clinical | (mask_features(scan, mask) or {})`.
      columns: names of clinical.FIELDS and mask_features.FEATURES; may be empty.

    Raises:
      UserError: a column is unknown, named twice, an outcome, or the grade itself.
    """
    _check(columns)
    rows = list(rows)
    return Encoder(tuple(_fit(name, [row[name] for row in rows if _known(row.get(name))]) for name in columns))


def _fit(name: str, values: list[float]) -> Column:
    if name in CATEGORIES:
        return Column(name, 0.0, 0.0, tuple(sorted({float(value) for value in values})))
    if len(set(values)) < 2:
        return Column(name, 0.0, 0.0, ())
    return Column(name, float(np.mean(values)), float(np.std(values)), ())


def _known(value: float | None) -> bool:
    return value is not None and not math.isnan(value)


def _check(columns: tuple[str, ...]) -> None:
    remedy = f"choose from {', '.join(name for name in FIELDS + FEATURES if name not in (*OUTCOMES, 'grade'))}"
    for place, name in enumerate(columns):
        if name in (*OUTCOMES, "grade"):
            what = "an outcome, unknown when the scan is made" if name in OUTCOMES else "what is to be predicted"
            raise UserError(f"the column {name} is {what}", remedy)
        if name not in FIELDS + FEATURES:
            raise UserError(f"unknown column {name!r}", remedy)
        if name in columns[:place]:
            raise UserError(f"the column {name} is named twice", "name each once")
