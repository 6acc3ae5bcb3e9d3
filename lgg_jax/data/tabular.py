"""Encoding of clinical values and mask features as the vector that a network takes.

    encoder = fit(training_rows, ("age", "gender", "irregularity"))    # statistics of the training patients only
    vector = encoder.encode({"age": 43.0, "gender": None})             # (encoder.width,) float32
    path.write_text(json.dumps(encoder.to_dict()))                     # Encoder.from_dict reads it

A number becomes (value - mean) / standard deviation. A category becomes a one-hot vector. Each column ends with an
indicator: if the value is missing, the indicator is 1 and the elements before it are 0. Therefore no patient is
dropped, and no missing value is imputed.
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping

import numpy as np

from lgg_jax.data.clinical import FIELDS
from lgg_jax.data.mask_features import FEATURES
from lgg_jax.errors import UserError

CATEGORIES = ("gender", "laterality", "tumor_location", "histological_type", "race", "ethnicity")  # codes, not amounts
OUTCOMES = ("death",)  # unknown at the time of the scan


@dataclasses.dataclass(frozen=True)
class Column:
    """The encoding of one value.

    Attributes:
      name: one of clinical.FIELDS or mask_features.FEATURES.
      mean, deviation: mean and standard deviation of a number over the training patients; 0 for a category.
      categories: the categories of the training patients, ascending; empty for a number.
    """

    name: str
    mean: float
    deviation: float
    categories: tuple[float, ...]

    @property
    def width(self) -> int:
        return (len(self.categories) if self.name in CATEGORIES else 1) + 1

    def encode(self, value: float | None) -> np.ndarray:
        """The encoded value: (width,) float32.

        A value counts as missing, too, if the network could not learn from it: a category that no training patient has,
        or a number that is missing or equal for all training patients.
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
    """The encoding of a patient's values: the columns of the vector, in order."""

    columns: tuple[Column, ...]

    @property
    def width(self) -> int:
        return sum(column.width for column in self.columns)

    def encode(self, values: Mapping[str, float | None]) -> np.ndarray:
        """The encoded values: (width,) float32. A column without a value, or with None or NaN, is missing."""
        parts = [column.encode(values.get(column.name)) for column in self.columns]
        return np.concatenate([np.zeros(0, np.float32), *parts])

    def to_dict(self) -> dict:
        """The encoder as values that JSON can hold."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, saved: dict) -> "Encoder":
        """The encoder that `to_dict` returned; JSON may have turned its tuples into lists."""
        return cls(tuple(Column(**column | {"categories": tuple(column["categories"])}) for column in saved["columns"]))


def fit(rows: Iterable[Mapping[str, float | None]], columns: tuple[str, ...]) -> Encoder:
    """Fits the encoder of `columns` to the values of the training patients.

    Args:
      rows: one mapping per patient, such as `scan.clinical | (mask_features(scan, mask) or {})`.
      columns: names from clinical.FIELDS and mask_features.FEATURES; may be empty.

    Raises:
      UserError: a column is unknown, given twice, an outcome, or the grade.
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
            what = "an outcome, unknown at the time of the scan" if name in OUTCOMES else "what is to be predicted"
            raise UserError(f"the column {name} is {what}", remedy)
        if name not in FIELDS + FEATURES:
            raise UserError(f"unknown column {name!r}", remedy)
        if name in columns[:place]:
            raise UserError(f"the column {name} is named twice", "name each once")
