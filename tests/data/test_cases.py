"""Network input of a scan, and the selection of its rows."""

import dataclasses

import numpy as np
import pytest

from configs import default
from lgg_jax.data import volume
from lgg_jax.data.cases import make_case, prepare_case

SLICES, SIZE = 5, 16


def config(**fields):
    result = default.get_config().data
    result.update({"size": SIZE, **fields})
    return result


def scan(with_mask=True) -> volume.Volume:
    """A head of half the image's height and width, slice numbers from 11, tumour in the second and fourth slice."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 4, (SLICES, 40, 48, 3))
    image[:, 8:32, 10:34] = rng.integers(80, 160, (SLICES, 24, 24, 3))
    mask = np.zeros(image.shape[:3], bool)
    mask[[1, 3], 14:22, 16:24] = True
    index = np.arange(11, 11 + SLICES, dtype=np.int32)
    return volume.Volume("P", image.astype(np.uint8), mask if with_mask else None, index, {"grade": 2.0})


def test_slices_of_a_scan():
    case = prepare_case(scan(), config())
    assert case.geometry == volume.find_geometry(scan().image, SIZE)
    assert case.images.shape == (SLICES, SIZE, SIZE, 3) and case.images.dtype == np.float16
    np.testing.assert_array_equal(case.images, volume.network_images(scan().image, case.geometry).astype(np.float16))
    assert case.masks.dtype == np.uint8
    shares = volume.network_masks(scan().mask, case.geometry)
    assert 0 < shares[1].mean() < 1 and len(np.unique(shares)) > 2
    np.testing.assert_allclose(case.masks / 255, shares, atol=0.5 / 255 + 1e-6)
    np.testing.assert_array_equal(case.tumour, [False, True, False, True, False])
    np.testing.assert_array_equal(case.slice_index, range(11, 16))
    assert np.isnan(case.labels).all() and case.labels.shape == (SLICES,)
    assert case.clinical.shape == (0,)


def test_the_whole_image_and_neighbours():
    case = prepare_case(scan(), config(crop=False, context=1))
    assert case.geometry.side == 48
    assert case.images.shape == (SLICES, SIZE, SIZE, 9)
    np.testing.assert_array_equal(case.images[2, ..., :3], case.images[1, ..., 3:6])


def test_the_same_scan_on_another_grid():
    case, other = prepare_case(scan(), config(context=1)), prepare_case(scan(), config(context=1, size=2 * SIZE))
    finer = prepare_case(case.scan, case.data, 2 * SIZE)
    assert finer.geometry == dataclasses.replace(case.geometry, size=2 * SIZE) == other.geometry
    np.testing.assert_array_equal(finer.images, other.images)
    np.testing.assert_array_equal(prepare_case(finer.scan, finer.data, SIZE).images, case.images)


def with_t2(scan) -> volume.Volume:
    """The scan with a fourth channel that is no multiple of another one."""
    t2 = np.random.default_rng(9).integers(0, 255, scan.image.shape[:3])
    return dataclasses.replace(scan, image=np.concatenate([scan.image, t2[..., None]], axis=-1))


@pytest.mark.parametrize("names, expected, without", [
    (("t1", "flair", "t1ce"), [0, 1, 2], [0, 1, 2]), (("t1ce", "t2", "t1"), [2, 3, 0], [2, 1, 0]),
    (("t2",), [3], [1]), (("t2", "t1ce", "flair", "t1"), [3, 2, 1, 0], [1, 2, 1, 0]),
])  # fmt: skip
def test_the_sequences_that_the_config_names_in_its_order(names, expected, without):
    """Each sequence is normalised alone, over the brain that FLAIR shows. FLAIR replaces a missing T2."""
    four = with_t2(scan())
    brain = volume.inside(volume.foreground(four.image))
    geometry = volume.find_geometry(four.image, SIZE)
    for source, channels in ((four, expected), (scan(), without)):
        images = prepare_case(source, config(channels=names)).images
        assert images.shape == (SLICES, SIZE, SIZE, len(names))
        for place, channel in enumerate(channels):
            alone = volume.normalise(source.image[..., channel], brain)
            same = volume.network_masks(alone, geometry).astype(np.float16)
            np.testing.assert_array_equal(images[..., place], same)
    neighbours = prepare_case(four, config(channels=names, context=1)).images
    np.testing.assert_array_equal(neighbours[1, ..., :len(names)], prepare_case(four, config(channels=names)).images[0])


def test_a_scan_without_a_ground_truth_mask():
    case = prepare_case(scan(with_mask=False), config())
    assert case.masks is None and not case.tumour.any()
    assert case.select(np.array([1])).masks is None


@pytest.mark.parametrize("rows", [np.array([1, 4]), np.array([False, True, False, False, True])])
def test_selected_rows(rows):
    whole = make_case(scan(), volume.find_geometry(scan().image, SIZE), np.zeros((SLICES, 2)), range(5), [7.0])
    case = whole.select(rows)
    assert len(case.images) == len(case.masks) == 2
    np.testing.assert_array_equal(case.masks, whole.masks[[1, 4]])
    np.testing.assert_array_equal(case.tumour, [True, False])
    np.testing.assert_array_equal(case.labels, [1, 4])
    np.testing.assert_array_equal(case.slice_index, [12, 15])
    np.testing.assert_array_equal(case.clinical, [7])
    assert case.scan is whole.scan and case.geometry is whole.geometry
