"""Mask features of synthetic tumours with known shape, location and intensity."""

import dataclasses
import inspect
import json
import re
import shutil

import numpy as np
import pytest

from lgg_jax.data import mask_features as module
from lgg_jax.data.layouts.kaggle import load_volumes
from lgg_jax.data.mask_features import FEATURES, INTENSITY, mask_features
from lgg_jax.data.volume import Volume, foreground, inside, normalise

SHAPE = (5, 104, 104)
Y, X = np.mgrid[:104, :104]
DISC = (Y - 40) ** 2 + (X - 66) ** 2 <= 15**2


def tumour_mask(*slices: int, shape: np.ndarray = DISC) -> np.ndarray:
    """A mask with the same shape, (104, 104) bool, in each of `slices`."""
    mask = np.zeros(SHAPE, bool)
    mask[list(slices)] = shape
    return mask


def scan(mask: np.ndarray, tumour=(80, 180, 90), rim=(100, 100, 100), seed=0) -> Volume:
    """A head of 80 × 80 pixels (rows and columns 12–91), with these mean intensities of the tumour and of the rest."""
    rng = np.random.default_rng(seed)
    image = rng.normal(2, 0.5, (*SHAPE, 3))
    image[:, 12:92, 12:92] = rng.normal(rim, 5, (5, 80, 80, 3))
    image[mask] = rng.normal(tumour, 5, (mask.sum(), 3))
    return Volume("P", image.clip(0, 255).astype(np.float32), None, np.arange(5, dtype=np.int32), {})


def features(mask: np.ndarray, **intensities) -> dict:
    return mask_features(scan(mask, **intensities), mask)


def test_names_are_those_of_the_table_in_the_module_docstring():
    table = re.findall(r"^    (\w+) {2,}(?:1|-1, 1|z) ", inspect.getdoc(module), flags=re.MULTILINE)
    assert tuple(table) == FEATURES == tuple(features(tumour_mask(2)))
    json.dumps(features(tumour_mask(2)), allow_nan=False)


def test_shares():
    result = features(tumour_mask(1, 2))
    area = DISC.sum() / 80**2
    assert result["volume_share"] == pytest.approx(2 * area / 5, rel=0.01)
    assert result["slice_share"] == 0.4
    assert result["area_share"] == pytest.approx(area, rel=0.01)


def test_t2_does_not_change_the_features():
    """This holds for a missing T2, too, which equals FLAIR."""
    three = scan(tumour_mask(2))
    four = dataclasses.replace(three, image=three.image[..., [0, 1, 2, 1]])
    assert mask_features(four, tumour_mask(2)) == mask_features(three, tumour_mask(2))
    assert mask_features(four, tumour_mask(2))["enhancement"] is not None


def test_a_disc_is_round():
    result = features(tumour_mask(2))
    assert result["elongation"] == pytest.approx(0, abs=0.01)
    assert result["solidity"] > 0.95
    assert result["irregularity"] == pytest.approx(1, abs=0.06)


def test_an_ellipse_is_long_and_a_star_is_irregular():
    ellipse = ((Y - 50) / 10) ** 2 + ((X - 60) / 25) ** 2 <= 1
    assert features(tumour_mask(2, shape=ellipse))["elongation"] == pytest.approx(1 - 10 / 25, abs=0.02)
    angle, radius = np.arctan2(Y - 50, X - 50), np.hypot(Y - 50, X - 50)
    star = features(tumour_mask(2, shape=radius <= 22 + 8 * np.cos(6 * angle)))
    assert star["irregularity"] > 1.5 and star["solidity"] < 0.85 and star["elongation"] < 0.05


def test_shape_features_are_of_the_largest_slice_with_all_components():
    ellipse = ((Y - 50) / 4) ** 2 + ((X - 60) / 25) ** 2 <= 1
    assert features(tumour_mask(2) | tumour_mask(3, shape=ellipse))["elongation"] < 0.01
    two = features(tumour_mask(2, shape=DISC | np.roll(DISC, -40, axis=1)))
    assert two["irregularity"] == pytest.approx(2, abs=0.1) and two["solidity"] < 0.95


def test_location():
    """The square is rows and columns 10–93: the head and a margin of 2 on each side. The disc's centre is (40, 66)."""
    result = features(tumour_mask(2, 3, 4))
    assert result["lateral"] == pytest.approx((66.5 - 52) / 84) and result["side"] == 1
    assert result["posterior"] == pytest.approx((40.5 - 10) / 84)
    assert result["height"] == 0.75
    assert result["crossing"] == pytest.approx((DISC & (X < 52)).sum() / DISC.sum(), abs=1e-6)
    assert result["crossing"] > 0
    other = features(tumour_mask(2, shape=DISC[:, ::-1]))
    assert other["side"] == -1 and other["lateral"] == pytest.approx(result["lateral"])


def test_intensities_are_relative_to_the_whole_brain():
    mask = tumour_mask(1, 2)
    volume = scan(mask)
    result, brain = mask_features(volume, mask), inside(foreground(volume.image))
    pre, flair, post = (normalise(volume.image[..., channel], brain) for channel in range(3))
    assert result["flair_mean"] == pytest.approx(flair[mask].mean(), abs=1e-4)
    assert result["flair_std"] == pytest.approx(flair[mask].std(), abs=1e-4)
    assert result["flair_p10"] == pytest.approx(np.percentile(flair[mask], 10), abs=1e-4)
    assert result["post_std"] == pytest.approx(post[mask].std(), abs=1e-4)
    beside = brain & ~mask & mask.any(axis=(1, 2))[:, None, None]  # like the rim, apart from noise
    assert result["flair_contrast"] == pytest.approx(flair[mask].mean() - flair[beside].mean(), abs=0.05)
    rise = post - pre
    assert result["enhancement"] == pytest.approx(rise[mask].mean() - rise[beside].mean(), abs=0.15)
    p95 = np.percentile(rise[mask], 95) - rise[beside].mean()
    assert result["enhancement_p95"] == pytest.approx(p95, abs=0.15)


def test_enhancement_and_necrosis():
    dark, bright = (features(tumour_mask(2), tumour=(80, 180, post)) for post in (60, 160))
    assert bright["enhancement"] > 1 > -0.1 > dark["enhancement"]
    assert bright["post_low_share"] < 0.01 and dark["post_low_share"] > 0.99


def test_features_do_not_depend_on_gain_and_offset():
    mask = tumour_mask(1, 2)
    volume = scan(mask)
    gained = Volume("P", volume.image * np.float32([2, 5, 0.5]) + np.float32([30, 0, 7]), None, volume.slice_index, {})
    assert mask_features(gained, mask) == pytest.approx(mask_features(volume, mask), abs=1e-3)


@pytest.mark.parametrize("copied, undefined", [
    ((), set()),
    ((0,), {"enhancement", "enhancement_p95"}),
    ((2,), {"enhancement", "enhancement_p95", "post_std", "post_low_share"}),
    ((0, 2), {"enhancement", "enhancement_p95", "post_std", "post_low_share"}),
])  # fmt: skip
def test_missing_sequences(copied, undefined):
    volume = scan(tumour_mask(2))
    for channel in copied:
        volume.image[..., channel] = volume.image[..., 1]
    result = mask_features(volume, tumour_mask(2))
    assert {name for name in FEATURES if result[name] is None} == undefined <= set(INTENSITY)


def test_no_tumour():
    assert mask_features(scan(tumour_mask(2)), tumour_mask()) is None


@pytest.mark.parametrize("rows, columns", [
    (slice(50, 51), slice(50, 51)), (slice(50, 51), slice(50, 52)), (slice(50, 51), slice(40, 60)),
    (slice(0, 104), slice(0, 104)), (slice(0, 1), slice(0, 1)),
])  # fmt: skip
def test_unusual_masks_have_finite_features(rows, columns):
    """One pixel, a line, the whole slice, a corner outside the head: a network may predict any of them."""
    mask, volume = tumour_mask(), scan(tumour_mask(2))
    mask[2, rows, columns] = True
    result = mask_features(volume, mask)
    assert np.isfinite([value for value in result.values() if value is not None]).all()
    assert None not in {result[name] for name in FEATURES if name not in INTENSITY}


def test_real_tumours(real_data, tmp_path):
    """Two patients: shares in the possible range, and the side that the clinical table states."""
    for patient in ("TCGA_CS_4941", "TCGA_CS_4943"):
        (folder,) = (real_data / "kaggle_3m").glob(f"{patient}_*")
        (tmp_path / folder.name).symlink_to(folder)
    shutil.copy(real_data / "kaggle_3m" / "data.csv", tmp_path)
    for volume in load_volumes(tmp_path, tmp_path / "cache"):
        result = mask_features(volume, volume.mask)
        assert 0 < result["volume_share"] < 0.2 and 0 <= result["crossing"] <= 0.5
        assert 0 < result["posterior"] < 1 and 0 < result["lateral"] < 0.5
        assert result["side"] == {1: 1, 3: -1}[volume.clinical["laterality"]]  # left is on the right of the image
