"""Geometry, resampling to the network grid and back, and intensity normalisation of whole volumes."""

import numpy as np
import pytest

from lgg_jax.data.volume import (
    Geometry,
    find_geometry,
    foreground,
    input_grid,
    inside,
    lacks_t2,
    missing_sequences,
    network_images,
    network_masks,
    normalise,
    with_neighbours,
)


def head_volume(height=60, width=80, rows=slice(10, 40), columns=slice(30, 50), slices=4, seed=0) -> np.ndarray:
    """A box of tissue with values 60–139 in weak noise below 4: (slice, height, width, 3) uint8."""
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 4, (slices, height, width, 3))
    shape = (slices, rows.stop - rows.start, columns.stop - columns.start, 3)
    image[:, rows, columns] = rng.integers(60, 140, shape)
    return image.astype(np.uint8)


def lopsided_mask(height: int, width: int) -> np.ndarray:
    """An L in one slice and an off-centre ellipse in the other, unlike their mirror images: (2, height, width) bool."""
    y, x = np.mgrid[:height, :width] / np.reshape([height, width], (2, 1, 1))
    corner = (y > 0.2) & (y < 0.8) & (x > 0.15) & (x < 0.7) & ~((y < 0.55) & (x > 0.4))
    ellipse = ((y - 0.35) / 0.2) ** 2 + ((x - 0.6) / 0.3) ** 2 < 1
    return np.stack([corner, ellipse])


def dice(first, second) -> float:
    return 2 * (first & second).sum() / (first.sum() + second.sum())


def test_square_is_centred_on_the_head_with_a_margin():
    geometry = find_geometry(head_volume(), size=32)
    # Head rows 10–39 and columns 30–49; the longer side of 30 and a margin of round(0.02 × 30) = 1 either way.
    assert geometry == Geometry(top=9, left=24, side=32, height=60, width=80, size=32)


def test_square_contains_the_head_of_every_slice():
    image = head_volume()
    image[2, 43:53, 58:68] = 100
    geometry = find_geometry(image, size=32)
    assert geometry.top <= 10 and geometry.top + geometry.side >= 53
    assert geometry.left <= 30 and geometry.left + geometry.side >= 68


def test_neither_noise_nor_a_nose_widens_the_square():
    image = head_volume(200, 300, slice(60, 140), slice(80, 200))
    noisy = image.copy()
    noisy[:, 190, [5, 290]] = noisy[:, [3, 9], 40] = 255
    noisy[:, 140:170, 130:150] = 100  # 20 of 120 columns wide
    assert find_geometry(noisy, 32) == find_geometry(image, 32)


@pytest.mark.parametrize("height, width", [(60, 80), (81, 60), (33, 33)])
def test_without_crop_the_whole_image_in_a_square(height, width):
    image = head_volume(height, width, slice(2, 9), slice(3, 12))
    geometry = find_geometry(image, 32, crop=False)
    side = max(height, width)
    assert geometry == Geometry((height - side) // 2, (width - side) // 2, side, height, width, 32)


def test_the_square_of_an_empty_volume_is_the_whole_image():
    geometry = find_geometry(np.zeros((2, 40, 50, 3), np.uint8), 32)
    assert geometry.top <= 0 and geometry.left <= 0
    assert geometry.top + geometry.side >= 40 and geometry.left + geometry.side >= 50


@pytest.mark.parametrize("top, left, side", [(3, 5, 20), (-4, -7, 61), (-4, 20, 41), (13, -9, 44)])
def test_round_trip_at_equal_scale_is_the_identity(top, left, side):
    """Inside the square, which lies within the image or extends beyond all or some of its edges."""
    mask = lopsided_mask(47, 53)
    geometry = Geometry(top, left, side, 47, 53, size=side)
    inside = np.zeros_like(mask)
    inside[:, max(top, 0) : top + side, max(left, 0) : left + side] = True
    back = input_grid(network_masks(mask, geometry), geometry)
    np.testing.assert_array_equal(back, mask & inside)


@pytest.mark.parametrize("height, width", [(256, 256), (180, 256), (255, 201)])
@pytest.mark.parametrize("crop", [True, False])
def test_round_trip_through_a_smaller_or_larger_grid(height, width, crop):
    mask = lopsided_mask(height, width)
    image = head_volume(height, width, slice(7, height - 3), slice(2, width - 9), slices=2)
    for size, least in ((128, 0.97), (160, 0.97), (320, 0.99)):
        geometry = find_geometry(image, size, crop)
        back = input_grid(network_masks(mask, geometry), geometry)
        assert back.shape == mask.shape
        assert dice(back >= 0.5, mask) > least
        assert dice(back[:, ::-1] >= 0.5, mask) < 0.9  # the masks differ from their mirror images


def test_image_and_mask_are_resampled_alike():
    """A sequence that is bright exactly in the mask is bright exactly in the mask on the network grid."""
    mask = lopsided_mask(100, 90)
    image = head_volume(100, 90, slice(8, 95), slice(3, 80), slices=2)
    image[..., 0] = np.where(mask, 200, 50)
    geometry = find_geometry(image, 48)
    images, masks = network_images(image, geometry), network_masks(mask, geometry)
    assert images.shape == (2, 48, 48, 3) and images.dtype == masks.dtype == np.float32
    low, high = images[..., 0].min(), images[..., 0].max()
    np.testing.assert_allclose((images[..., 0] - low) / (high - low), masks, atol=1e-5)


def test_edge_values_beyond_the_image_and_zeros_outside_the_square():
    image = head_volume(40, 60)
    sees_more = network_images(image, Geometry(-10, 0, 60, 40, 60, 60))
    np.testing.assert_array_equal(sees_more[:, :10], np.repeat(sees_more[:, 10:11], 10, axis=1))
    back = input_grid(np.ones((4, 20, 20)), Geometry(5, 8, 20, 40, 60, 20))
    assert back.sum() == 4 * 20 * 20 and back[:, 5:25, 8:28].all()


def test_a_mask_on_the_network_grid_is_the_share_of_each_pixel():
    mask = np.zeros((1, 8, 8), bool)
    mask[0, :3] = True  # a network pixel covers two rows; the second one is half covered
    shares = network_masks(mask, Geometry(0, 0, 8, 8, 8, 4))
    assert shares.min() >= 0 and shares.max() <= 1
    assert shares[0, 0].min() > 0.8 and 0.2 < shares[0, 1].min() < 0.8 and shares[0, 3].max() == 0


def normalised(image: np.ndarray, brain: np.ndarray) -> np.ndarray:
    return np.stack([normalise(image[..., channel], brain) for channel in range(image.shape[-1])], axis=-1)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
def test_foreground_is_the_head_in_flair(dtype):
    expected = np.zeros((4, 60, 80), bool)
    expected[:, 10:40, 30:50] = True
    image = head_volume().astype(dtype)
    image[..., 0] += 90  # some sequences have a grey background
    np.testing.assert_array_equal(foreground(image), expected)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
def test_median_zero_and_unit_spread_over_the_brain(dtype):
    image = head_volume().astype(dtype)
    brain = inside(foreground(image))
    values = normalised(image, brain)
    assert values.dtype == np.float32
    low, middle, high = np.percentile(values[brain], [25, 50, 75], axis=0)
    np.testing.assert_allclose(middle, 0, atol=1e-5)
    np.testing.assert_allclose(high - low, 1.349, atol=1e-5)
    assert (values[~foreground(image)] < -1.5).all()


def test_inside_is_the_head_without_its_rim():
    head = np.zeros((3, 60, 80), bool)
    head[:2, 10:50, 20:70] = True  # 2000 pixels: the rim is 0.08 · 44.7 = 3.6 pixels wide
    head[0, 30, 40] = False  # a hole has no rim, and stays a hole
    expected = np.zeros_like(head)
    expected[:2, 13:47, 23:67] = True
    expected[0, 30, 40] = False
    np.testing.assert_array_equal(inside(head), expected)
    thin = np.zeros((1, 40, 40), bool)
    thin[0, 20] = True
    np.testing.assert_array_equal(inside(thin), thin)


def test_a_bright_scalp_does_not_change_the_brain():
    """With statistics of the whole head, a scalp three times as bright would reduce the brain's contrast to a third."""
    image = head_volume(120, 120, slice(10, 110), slice(10, 110)).astype(np.float32)
    brain = inside(foreground(image))
    bright = image.copy()
    bright[:, 10:14, 10:110] *= 3
    before, after = (normalise(array[..., 0], inside(foreground(array))) for array in (image, bright))
    np.testing.assert_allclose(after[brain], before[brain], atol=0.05)


def test_against_the_formula_in_double_precision():
    image = np.random.default_rng(1).gamma(0.5, 40, (3, 40, 40, 3)).clip(0, 255).astype(np.uint8)
    assert 0.2 < foreground(image).mean() < 0.8
    low, middle, high = np.percentile(image[inside(foreground(image))], [25, 50, 75], axis=0)
    expected = ((image - middle) / ((high - low) / 1.349)).clip(-5, 5)
    geometry = Geometry(0, 0, 40, 40, 40, 40)
    np.testing.assert_allclose(network_images(image, geometry), expected, atol=2e-6)


def test_unit_and_offset_of_the_intensities_do_not_matter():
    image = head_volume()[..., 0].astype(np.float32)
    head = image > 10
    reference = normalise(image, head)
    np.testing.assert_allclose(normalise(37.5 * image + 1000, head), reference, atol=1e-3)
    np.testing.assert_allclose(normalise(0.001 * image - 5, head), reference, atol=1e-3)
    doubled = network_images(2 * head_volume().astype(np.int16), Geometry(0, 0, 60, 60, 80, 60))
    np.testing.assert_allclose(doubled, network_images(head_volume(), Geometry(0, 0, 60, 60, 80, 60)), atol=1e-5)


@pytest.mark.parametrize("constant", [0, 200, 100.1])
def test_a_constant_channel_is_zero(constant):
    image = head_volume().astype(np.float32)
    image[..., 2] = constant
    values = network_images(image, find_geometry(image, 32))
    np.testing.assert_allclose(values[..., 2], 0, atol=1e-5)
    assert values[..., 0].std() > 0.5


def test_an_empty_volume_is_zero():
    image = np.zeros((3, 40, 50, 3), np.uint8)
    values = network_images(image, find_geometry(image, 16))
    assert values.shape == (3, 16, 16, 3) and not values.any()


def test_one_bright_pixel_changes_only_itself():
    image = head_volume().astype(np.float32)
    changed = image.copy()
    changed[1, 20, 40, 0] = 1e6
    before, after = (normalised(array, foreground(array)) for array in (image, changed))
    assert after[1, 20, 40, 0] == after[..., 0].max() == 5
    after[1, 20, 40, 0] = before[1, 20, 40, 0]
    np.testing.assert_allclose(after, before, atol=5e-3)


def test_slices_are_not_normalised_alone():
    image = head_volume().astype(np.float32)
    image[2] *= 1.8
    values = normalise(image[..., 0], foreground(image))
    means = values[:, 10:40, 30:50].mean(axis=(1, 2))
    assert means[2] > means[[0, 1, 3]].max() + 1
    # A slice without a head stays at the level of the background: its noise is not amplified to unit spread.
    empty = np.concatenate([head_volume(), np.random.default_rng(2).integers(0, 4, (1, 60, 80, 3), np.uint8)])
    values = network_images(empty, find_geometry(empty, 32))
    assert (values[-1] < -1.5).all() and values[-1].std() < 0.15


def test_a_fourth_sequence_changes_none_of_the_others():
    three = head_volume()
    four = np.concatenate([three, three[..., :1] // 2], axis=-1)
    assert missing_sequences(three) == missing_sequences(four) == ()
    four[..., 3] = four[..., 1]
    assert missing_sequences(four) == ("T2",)
    assert lacks_t2(three, ("flair", "t2")) and not lacks_t2(three, ("t1",)) and not lacks_t2(four, ("t2",))
    geometry = find_geometry(three, 32)
    assert find_geometry(four, 32) == geometry
    np.testing.assert_array_equal(network_images(four, geometry), network_images(three, geometry))


def test_neighbouring_slices_in_order():
    """Channel c of slice i is 10 i + c. Beyond the ends, the first and the last slice are repeated."""
    images = np.broadcast_to(10 * np.arange(4)[:, None, None, None] + np.arange(3), (4, 5, 6, 3))
    np.testing.assert_array_equal(with_neighbours(images, 0), images)
    beside = with_neighbours(images, 1)
    assert beside.shape == (4, 5, 6, 9)
    expected = [[0, 1, 2, 0, 1, 2, 10, 11, 12], [0, 1, 2, 10, 11, 12, 20, 21, 22],
                [10, 11, 12, 20, 21, 22, 30, 31, 32], [20, 21, 22, 30, 31, 32, 30, 31, 32]]  # fmt: skip
    np.testing.assert_array_equal(beside[:, 2, 3], expected)
    np.testing.assert_array_equal(with_neighbours(images[:1], 2)[0, 0, 0], [0, 1, 2] * 5)
