"""Augmentation: image and mask stay aligned, each transformation has the parameters of the config, the seed decides.

Some tests need the map of coordinates. The values of their image are its own coordinates. Bilinear sampling of a linear
ramp is exact, so the value of an output pixel is the position where it was sampled.
"""

import numpy as np
import pytest
import tensorflow as tf
from augmented import ALL, EVERYTHING, GEOMETRIC, SIZE, config, lopsided, noise, run
from scipy import ndimage

from lgg_jax.data.augment import augment


def ramps(size=SIZE) -> np.ndarray:
    """(size, size, 3): row, column and their product."""
    y, x = np.mgrid[:size, :size].astype(np.float32)
    return np.stack([y, x, y * x], axis=-1)


def sources(seeds=range(1), **fields) -> np.ndarray:
    """Row and column of the input at which each output pixel was sampled: (seed, SIZE, SIZE, 2)."""
    return run(ramps(), np.zeros((SIZE, SIZE)), seeds, **fields)[0][..., :2]


@pytest.mark.parametrize("fields", [*GEOMETRIC.values(), ALL], ids=[*GEOMETRIC, "all"])
def test_image_and_mask_move_together(fields):
    image, mask = noise(), lopsided()
    image[..., 1] = mask
    images, masks = run(image, mask, range(8), **fields)
    np.testing.assert_array_equal(images[..., 1], masks)
    assert all(np.abs(moved - mask).mean() > 0.005 for moved in masks)


def test_all_off_is_the_identity():
    images, masks = run(noise(), lopsided())
    np.testing.assert_array_equal(images[0], noise())
    np.testing.assert_array_equal(masks[0], lopsided())


def test_sampling_without_a_change_is_the_identity():
    images, masks = run(noise(), lopsided(), flip_horizontal=1e-9)
    np.testing.assert_allclose(images[0], noise(), atol=1e-4)
    np.testing.assert_allclose(masks[0], lopsided(), atol=1e-4)


@pytest.mark.parametrize("name, axis", [("flip_horizontal", 1), ("flip_vertical", 0)])
def test_flips_are_mirrors(name, axis):
    images, masks = run(noise(), lopsided(), **{name: 1.0})
    np.testing.assert_allclose(images[0], np.flip(noise(), axis), atol=1e-4)
    np.testing.assert_allclose(masks[0], np.flip(lopsided(), axis), atol=1e-4)


def test_flips_of_an_image_that_is_not_square():
    image, mask = noise()[:20], lopsided()[:20]
    images, masks = run(image, mask, flip_horizontal=1.0, flip_vertical=1.0)
    np.testing.assert_allclose(images[0], image[::-1, ::-1], atol=1e-4)
    np.testing.assert_allclose(masks[0], mask[::-1, ::-1], atol=1e-4)


@pytest.mark.parametrize("name", ["flip_horizontal", "flip_vertical", "elastic"])
def test_frequency_is_the_probability_of_the_config(name):
    moved = np.abs(sources(range(300), **{name: 0.3}) - ramps()[..., :2]).max(axis=(1, 2, 3)) > 1e-3
    assert 0.22 < moved.mean() < 0.38


def angles(seeds, degrees: float) -> np.ndarray:
    """The angle of each output in degrees, from the source of a pixel to the right of the centre."""
    centre = (SIZE - 1) / 2
    source = sources(seeds, rotation_degrees=degrees)[:, SIZE // 2, SIZE // 2 + 8] - centre
    place = np.array([0.5, 8.5])
    turned = np.arctan2(source[:, 0], source[:, 1]) - np.arctan2(*place)
    np.testing.assert_allclose(np.hypot(*source.T), np.hypot(*place), rtol=1e-4)  # the scale is 1
    return np.degrees(turned)


def test_rotation_equals_scipy():
    seeds, centre = range(5), (SIZE - 1) / 2
    image, mask = ndimage.gaussian_filter(noise(), (1, 1, 0)), lopsided()
    images, masks = run(image, mask, seeds, rotation_degrees=40.0)
    for angle, turned, turned_mask in zip(np.radians(angles(seeds, 40.0)), images, masks, strict=True):
        matrix = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        offset = centre - matrix @ [centre, centre]
        for plane, result in ((image[..., 2], turned[..., 2]), (mask, turned_mask)):
            expected = ndimage.affine_transform(plane, matrix, offset, order=1, mode="nearest")
            np.testing.assert_allclose(result, expected, atol=2e-3)


def test_rotation_moves_a_marker_to_the_right_place():
    mask = np.zeros((SIZE, SIZE), np.float32)
    mask[14:18, 24:28] = 1
    _, masks = run(noise(), mask, range(6), rotation_degrees=90.0)
    for angle, turned in zip(angles(range(6), 90.0), masks, strict=True):
        y, x = np.array(ndimage.center_of_mass(turned)) - (SIZE - 1) / 2
        assert np.degrees(np.arctan2(y, x)) == pytest.approx(-angle, abs=2)
        assert np.hypot(y, x) == pytest.approx(10, abs=0.3)


def test_rotation_is_uniform_within_its_range():
    sampled = angles(range(400), 20.0)
    assert np.abs(sampled).max() <= 20.001
    assert sampled.min() < -19 and sampled.max() > 19
    counts, _ = np.histogram(sampled, bins=4, range=(-20, 20))
    assert counts.min() > 70


def crop_windows(low: float, high: float) -> np.ndarray:
    """First and last row and column of the crop window: (seed, 2, 2), in units of the image side.

    They are extrapolated from the middle of the image.
    """
    maps = sources(range(300), crop_scale=(low, high)) / (SIZE - 1)
    middle = slice(SIZE // 2 - 2, SIZE // 2 + 2)
    step = np.stack([np.diff(maps[:, middle, 16, 0]).mean(1), np.diff(maps[:, 16, middle, 1]).mean(1)], 1) * (SIZE - 1)
    centre = np.stack([maps[:, 15:17, 16, 0].mean(1), maps[:, 16, 15:17, 1].mean(1)], 1)
    return np.stack([centre - step / 2, centre + step / 2], -1)


def test_crop_scale_and_proportion():
    windows = crop_windows(0.8, 1.1)
    sides = windows[..., 1] - windows[..., 0]
    scale, ratio = np.sqrt(sides.prod(axis=1)), sides[:, 0] / sides[:, 1]
    assert 0.8 - 1e-3 < scale.min() < 0.82 and 1.08 < scale.max() < 1.1 + 1e-3
    assert 0.9 - 1e-3 < ratio.min() < 0.92 and 1.08 < ratio.max() < 1.1 + 1e-3


def test_a_crop_that_fits_stays_within_the_slice():
    windows = crop_windows(0.6, 1.1)
    sides = windows[..., 1] - windows[..., 0]
    fits = sides <= 1
    assert windows[fits].min() > -1e-3 and windows[fits].max() < 1 + 1e-3
    assert windows[fits][:, 0].min() < 0.01 and windows[fits][:, 1].max() > 0.99
    np.testing.assert_allclose(windows[~fits].mean(axis=1), 0.5, atol=1e-3)


def test_a_narrow_crop_range_keeps_the_proportion():
    windows = crop_windows(0.95, 1.05)
    sides = windows[..., 1] - windows[..., 0]
    np.testing.assert_allclose(sides[:, 0], sides[:, 1], atol=1e-3)
    assert 0.95 - 1e-3 < sides.min() < 0.96 and 1.04 < sides.max() < 1.05 + 1e-3


def test_elastic_moves_pixels_a_little_and_smoothly():
    shifts = sources(range(60), elastic=1.0, elastic_share=0.02) - ramps()[..., :2]
    assert np.isfinite(shifts).all()
    inner = shifts[:, 5:-5, 5:-5] / SIZE  # near the edge the sources are clipped
    assert 0.01 < inner.std() < 0.03 and np.abs(inner).max() < 0.11
    for axis in (1, 2):
        assert np.abs(np.diff(inner, axis=axis)).max() * SIZE < 1  # no folding
    assert np.abs(inner.mean()) < 0.005


def test_results_are_a_function_of_the_seed_and_differ_between_seeds():
    first, masks = run(noise(), lopsided(), range(30), **EVERYTHING)
    again, _ = run(noise(), lopsided(), [17, 3], **EVERYTHING)
    np.testing.assert_array_equal(again, first[[17, 3]])
    assert len({image.tobytes() for image in first}) == len({mask.tobytes() for mask in masks}) == 30


def test_eager_and_tf_data_agree_and_depend_on_the_seed_of_the_run():
    image, mask = tf.constant(noise()), tf.constant(lopsided())
    eager, other = (
        augment(image, mask, tf.constant([seed, 4], tf.int64), config(**EVERYTHING))[0].numpy() for seed in (7, 8)
    )
    np.testing.assert_allclose(run(noise(), lopsided(), [4], **EVERYTHING)[0][0], eager, atol=1e-4)
    assert np.abs(eager - other).mean() > 0.1


def test_random_parameters_of_a_transformation_do_not_depend_on_the_others():
    """Away from the edge, all transformations together equal the composition of the single ones."""
    seeds, centre = range(10), (SIZE - 1) / 2
    gentle = {"rotation_degrees": 20.0, "crop_scale": (0.5, 0.7), "flip_horizontal": 0.5, "flip_vertical": 0.5}
    flipped = sources(seeds, flip_horizontal=0.5, flip_vertical=0.5) - centre
    sign = np.sign(flipped[:, -1, -1])
    cropped = sources(seeds, crop_scale=(0.5, 0.7)) - centre
    slope = (cropped[:, -1, -1] - cropped[:, 0, 0]) / (SIZE - 1)
    angle = np.radians(angles(seeds, 20.0))
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    windows = (ramps()[..., :2] - centre) * (slope * sign)[:, None, None] + cropped.mean(axis=(1, 2))[:, None, None]
    expected = np.einsum("abn,nhwb->nhwa", turn, windows) + centre
    inside = ((expected > 0.5) & (expected < SIZE - 1.5)).all(axis=-1)
    assert inside.mean() > 0.5
    together = sources(seeds, **gentle)
    np.testing.assert_allclose(together[inside], expected[inside], atol=0.02)
    elastic = sources(seeds, elastic=1.0) - ramps()[..., :2]
    both = sources(seeds, elastic=1.0, **gentle)
    inner = np.zeros_like(inside)
    inner[:, 5:-5, 5:-5] = True
    inner &= ((expected > 5) & (expected < SIZE - 6)).all(axis=-1)
    np.testing.assert_allclose((both - together)[inner], elastic[inner], atol=0.02)
