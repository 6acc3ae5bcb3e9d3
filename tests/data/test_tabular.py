"""Encoding of clinical values and mask features, with an indicator for missing values."""

import json
import math

import numpy as np
import pytest

from configs import default, grade_resnet50
from lgg_jax.data.tabular import OUTCOMES, Encoder, fit
from lgg_jax.errors import UserError

# Age: mean 40, standard deviation 10. Gender 1 is the first category, as categories are sorted.
ROWS = [
    {"age": 30.0, "gender": 2.0, "irregularity": None},
    {"age": 50.0, "gender": 1.0, "irregularity": None},
    {"age": None, "gender": None, "irregularity": math.nan},
]
COLUMNS = ("gender", "age")
PATHOLOGY = ("histological_type",)  # determined on the same specimen as the grade


@pytest.mark.parametrize("values, expected", [
    ({"age": 60.0, "gender": 1.0}, [1, 0, 0, 2, 0]),
    ({"age": 35.0, "gender": 2.0}, [0, 1, 0, -0.5, 0]),
    ({"age": 40.0, "gender": 2.0}, [0, 1, 0, 0, 0]),  # the mean is not missing
    ({"age": None, "gender": 2.0}, [0, 1, 0, 0, 1]),
    ({"age": math.nan, "gender": math.nan}, [0, 0, 1, 0, 1]),
    ({"age": 40.0, "gender": 3.0}, [0, 0, 1, 0, 0]),  # a category that no training patient has
    ({}, [0, 0, 1, 0, 1]),
])  # fmt: skip
def test_encoded_values(values, expected):
    encoder = fit(ROWS, COLUMNS)
    vector = encoder.encode(values)
    assert encoder.width == len(expected) and vector.dtype == np.float32
    np.testing.assert_allclose(vector, expected)


def test_training_patients_have_mean_zero_and_deviation_one():
    rng = np.random.default_rng(0)
    rows = [{"age": age, "solidity": value} for age, value in zip(rng.normal(45, 14, 50), rng.random(50), strict=True)]
    encoder = fit(rows, ("age", "solidity"))
    vectors = np.stack([encoder.encode(row) for row in rows])
    np.testing.assert_allclose(vectors.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(vectors.std(axis=0), [1, 0, 1, 0], atol=1e-6)


@pytest.mark.parametrize("rows", [ROWS, [{"irregularity": 1.5}] * 3, []])
def test_a_number_without_variation_in_training_is_missing(rows):
    """All missing, all equal, or no rows: no number can be scaled."""
    encoder = fit(rows, ("irregularity",))
    for value in (None, 1.5, 9.0):
        np.testing.assert_array_equal(encoder.encode({"irregularity": value}), [0, 1])


def test_a_category_that_nobody_has():
    encoder = fit(ROWS, ("laterality",))
    assert encoder.width == 1
    np.testing.assert_array_equal(encoder.encode({"laterality": 3.0}), [1])


def test_through_json():
    encoder = fit(ROWS, COLUMNS)
    again = Encoder.from_dict(json.loads(json.dumps(encoder.to_dict(), allow_nan=False)))
    assert again == encoder and hash(again) == hash(encoder)


def test_no_columns():
    encoder = fit(ROWS, ())
    assert encoder.width == 0 and encoder.encode(ROWS[0]).shape == (0,)


@pytest.mark.parametrize("config", [default, grade_resnet50])
def test_configs_take_neither_pathology_nor_outcome(config):
    columns = config.get_config().data.tabular
    assert not {*columns} & {*PATHOLOGY, *OUTCOMES, "grade"}
    fit([], columns)  # no column is unknown


def test_histology_can_be_chosen():
    assert fit([{"histological_type": 1.0}, {"histological_type": 3.0}], PATHOLOGY).width == 3


@pytest.mark.parametrize("column, message", [
    ("death", "the column death is an outcome"),
    ("grade", "the column grade is what is to be predicted"),
    ("tumour_size", "unknown column 'tumour_size'; choose from age, gender"),
    ("gender", "the column gender is named twice"),
])  # fmt: skip
def test_refused_columns(column, message):
    with pytest.raises(UserError, match=message):
        fit(ROWS, (*COLUMNS, column))
