"""Regions of the classifier's input: the head, the tumour only, the square around the tumour."""

import dataclasses

import ml_collections
import numpy as np
import pytest

from lgg_jax.data.region import REGIONS, near, region_geometry, region_images, region_masks
from lgg_jax.data.volume import (
    SEQUENCES,
    Geometry,
    Volume,
    find_geometry,
    foreground,
    input_grid,
    inside,
    network_images,
    normalise,
)
from lgg_jax.errors import UserError

SLICES, HEIGHT, WIDTH = 4, 120, 100


def scan(seed=0) -> Volume:
    """Tissue of 60–139 in rows 10–109 and columns 10–89, without a mask."""
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 4, (SLICES, HEIGHT, WIDTH, 3))
    image[:, 10:110, 10:90] = rng.integers(60, 140, (SLICES, 100, 80, 3))
    return Volume("P", image.astype(np.uint8), None, np.arange(SLICES, dtype=np.int32), {})


def tumour() -> np.ndarray:
    """Rows 40–69 and columns 20–39 in slice 1, rows 50–79 and columns 30–59 in slice 2: 40 × 40 in all."""
    mask = np.zeros((SLICES, HEIGHT, WIDTH), bool)
    mask[1, 40:70, 20:40] = mask[2, 50:80, 30:60] = True
    return mask


def config(region: str, size: int = 64, crop: bool = True) -> ml_collections.ConfigDict:
    return ml_collections.ConfigDict({"channels": SEQUENCES[:3], "size": size, "crop": crop, "region": region})


@pytest.mark.parametrize("crop", [True, False])
def test_slice_is_the_input_of_the_segmentation(crop):
    images = region_images(scan(), None, config("slice", crop=crop))
    geometry = find_geometry(scan().image, 64, crop)
    np.testing.assert_array_equal(images, network_images(scan().image, geometry))


def test_the_sequences_that_the_config_names():
    chosen = config("crop")
    chosen.channels = ("t1ce", "t1")
    expected = region_images(scan(), tumour(), config("crop"))[..., [2, 0]]
    np.testing.assert_array_equal(region_images(scan(), tumour(), chosen), expected)


def test_masked_keeps_the_tumour_and_a_margin():
    whole, masked = (region_images(scan(), tumour(), config(region)) for region in ("slice", "masked"))
    share = region_masks(scan(), tumour(), config("masked"))
    kept = masked.any(axis=-1)
    np.testing.assert_array_equal(masked[kept], whole[kept])
    assert kept[share > 0].all()
    assert not kept[[0, 3]].any()  # slices without tumour
    for index in (1, 2):  # a margin of round(0.05 × 64) = 3 pixels on every side, no more
        for axis in (0, 1):
            inner, outer = (np.flatnonzero(part[index].any(axis=axis)) for part in (share > 0, kept))
            assert (outer[0], outer[-1]) == (inner[0] - 3, inner[-1] + 3)


def test_near_is_round_and_within_the_slice():
    masks = np.zeros((3, 9, 9), bool)
    masks[1, 4, 4] = True
    y, x = np.mgrid[-4:5, -4:5]
    np.testing.assert_array_equal(near(masks, 3), [np.zeros((9, 9), bool), y**2 + x**2 <= 9, np.zeros((9, 9), bool)])


def test_crop_is_one_square_around_the_tumour_of_all_slices():
    """Rows 40–79 and columns 20–59; 1.25 × 40 = 50 pixels around the middle (60, 40)."""
    geometry = region_geometry(scan(), tumour(), config("crop", 50))
    assert geometry == Geometry(top=35, left=15, side=50, height=HEIGHT, width=WIDTH, size=50)
    images = region_images(scan(), tumour(), config("crop", 50))
    brain = inside(foreground(scan().image))
    whole = np.stack([normalise(scan().image[..., channel], brain) for channel in range(3)], axis=-1)
    np.testing.assert_allclose(images, whole[:, 35:85, 15:65], atol=1e-5)  # intensities of the brain, not of the crop
    np.testing.assert_array_equal(region_masks(scan(), tumour(), config("crop", 50)), tumour()[:, 35:85, 15:65])


def test_crop_of_a_small_tumour_at_the_edge():
    mask = np.zeros((SLICES, HEIGHT, WIDTH), bool)
    mask[2, 117:120, 0:5] = True
    geometry = region_geometry(scan(), mask, config("crop"))
    assert geometry == Geometry(top=102, left=-14, side=32, height=HEIGHT, width=WIDTH, size=64)
    back = input_grid(region_masks(scan(), mask, config("crop")), geometry) >= 0.5
    np.testing.assert_array_equal(back[2, 110:, :10], mask[2, 110:, :10])
    assert np.isfinite(region_images(scan(), mask, config("crop"))).all()


def test_no_tumour_at_all():
    """The crop is the head and the masked image is 0. Either way the patient keeps its slices."""
    nothing = np.zeros((SLICES, HEIGHT, WIDTH), bool)
    whole, crop, masked = (region_images(scan(), nothing, config(region)) for region in ("slice", "crop", "masked"))
    np.testing.assert_array_equal(crop, whole)
    assert masked.shape == whole.shape and not masked.any()


@pytest.mark.parametrize("region", REGIONS)
def test_image_and_mask_are_on_one_grid(region):
    """A sequence that is bright exactly in the tumour is bright exactly in the mask on the network grid."""
    image = scan().image
    image[..., 0] = np.where(tumour(), 200, 50)
    bright = dataclasses.replace(scan(), image=image)
    images, masks = (take(bright, tumour(), config(region)) for take in (region_images, region_masks))
    assert images.shape == (SLICES, 64, 64, 3) and masks.shape == (SLICES, 64, 64)
    assert images.dtype == masks.dtype == np.float32
    np.testing.assert_array_equal((images[..., 0] >= images[..., 0].max() / 2)[masks > 0.9], True)
    np.testing.assert_array_equal((images[..., 0] >= images[..., 0].max() / 2)[masks < 0.1], False)


def test_the_mask_of_the_scan_is_ignored():
    annotated = dataclasses.replace(scan(), mask=~tumour())
    for region in REGIONS:
        expected = region_images(scan(), tumour(), config(region))
        np.testing.assert_array_equal(region_images(annotated, tumour(), config(region)), expected)


def test_errors():
    with pytest.raises(UserError, match=r"region='tumor' is unknown; choose one of slice, masked, crop"):
        region_images(scan(), tumour(), config("tumor"))
    for region in ("masked", "crop"):
        with pytest.raises(UserError, match=f"patient P has no mask, and config.data.region={region}"):
            region_images(scan(), None, config(region))
    with pytest.raises(UserError, match="patient P has no mask"):
        region_masks(scan(), None, config("slice"))
