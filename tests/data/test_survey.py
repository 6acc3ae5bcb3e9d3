"""Descriptive statistics of a data set, against values computed by hand."""

import numpy as np
import pytest
from head_volume import head_volume

from lgg_jax.data import survey
from lgg_jax.data.volume import Volume, find_geometry, foreground
from lgg_jax.errors import UserError


def test_measures_by_hand():
    volume = head_volume("TCGA_CS_1", left=20)
    square = find_geometry(volume.image, survey.GRID)
    case = survey.measure(volume, foreground(volume.image), square)
    assert case["tumour_pixels"] == 40 and case["tumour_slices"] == 2 and case["head_pixels"] == 4 * 800
    assert case["tumour_share"] == 40 / 3200
    assert case["depth"] == 3 / 4  # between the third and the fourth of four slices
    assert (square.top, square.left, square.side) == (9, 9, 42)
    assert case["row"] == pytest.approx((14 - 9) / 42) and case["column"] == pytest.approx((22.5 - 9) / 42)
    assert case["grade"] == 2.0 and np.isnan(case["age"]) and case["missing"] == ()


def test_measures_without_tumour():
    volume = head_volume("p", left=20)
    volume.mask[:] = False
    case = survey.measure(volume, foreground(volume.image), find_geometry(volume.image, survey.GRID))
    assert case["tumour_pixels"] == case["tumour_share"] == 0
    assert np.isnan([case["row"], case["column"], case["depth"]]).all()


def test_intensities_are_quartiles_of_the_head():
    volume = head_volume("TCGA_DU_1", left=20)
    rows = survey.sequence_intensities(volume, foreground(volume.image), ("pre-contrast",))
    assert [row["sequence"] for row in rows] == ["FLAIR", "post-contrast"]
    assert (rows[0]["low"], rows[0]["median"], rows[0]["high"]) == (100.0, 120.0, 140.0)
    assert rows[1]["median"] == 50.0 and rows[1]["institution"] == "DU"


def test_maps_are_shares_of_patients():
    """Two of three patients have a tumour on the left, one on the right."""
    result = survey.survey(head_volume(f"p{i}", left) for i, left in enumerate((20, 20, 35)))
    row = round((14 - 9) / 42 * 128)
    left, right, middle = (round((column - 9) / 42 * 128) for column in (22.5, 37.5, 30))
    assert result.tumour_map[row, left] == pytest.approx(2 / 3)
    assert result.tumour_map[row, right] == pytest.approx(1 / 3)
    assert result.tumour_map[row, middle] == 0
    assert result.head_map[row, middle] == 1 and result.head_map[row, 2] == 0
    image, mask = result.samples["p2"]
    assert image.shape == mask.shape == (42, 42) and mask.sum() == 20 and mask[5, 28]


def test_a_volume_without_a_mask_is_refused():
    unmasked = Volume("p", np.ones((1, 8, 8, 3), np.uint8), None, np.arange(1), {})
    with pytest.raises(UserError, match="patient p has no mask"):
        survey.survey([unmasked])
