"""Augmentation of the intensities: contrast, brightness, bias field, and sequences replaced by FLAIR."""

import numpy as np
import pytest
from augmented import ALL, EVERYTHING, INTENSITY, SIZE, lopsided, noise, run


@pytest.mark.parametrize("name, bound", [("brightness", 0.3), ("contrast", 0.4)])
def test_intensity_changes_are_uniform_and_independent_for_each_channel(name, bound):
    image = noise()
    images, masks = run(image, lopsided(), range(200), **{name: bound})
    change = images - image if name == "brightness" else images / image - 1
    sampled = np.median(change, axis=(1, 2))  # (seed, channel)
    expected = image + sampled[:, None, None] if name == "brightness" else image * (1 + sampled[:, None, None])
    np.testing.assert_allclose(images, expected, atol=1e-4)
    assert -bound <= sampled.min() < -0.95 * bound and 0.95 * bound < sampled.max() <= bound + 1e-6
    assert np.abs(sampled.mean(axis=0)).max() < 0.12 * bound
    np.testing.assert_allclose(sampled.std(axis=0), bound / np.sqrt(3), rtol=0.12)
    assert np.abs(np.corrcoef(sampled.T) - np.eye(3)).max() < 0.25
    np.testing.assert_array_equal(masks, np.broadcast_to(lopsided(), masks.shape))


def test_bias_field_is_smooth_and_independent_for_each_channel():
    images, masks = run(noise(), lopsided(), range(300), bias_field=1.0, bias_field_deviation=0.4)
    field = images - noise()
    assert max(np.abs(np.diff(field, axis=axis)).mean() for axis in (1, 2)) < 0.05  # white noise: 0.45
    sampled = field[:, 5, 5]  # (seed, channel); one of the 3 × 3 grid points; values between them are interpolated
    assert np.abs(sampled.mean(axis=0)).max() < 0.1
    np.testing.assert_allclose(sampled.std(axis=0), 0.4, rtol=0.15)
    across = [sampled[:, 0], sampled[:, 1], field[:, 5, 26, 0], field[:, 26, 5, 0]]
    assert np.abs(np.corrcoef(across) - np.eye(4)).max() < 0.25
    np.testing.assert_array_equal(masks, np.broadcast_to(lopsided(), masks.shape))
    changed = (run(noise(), lopsided(), range(300), bias_field=0.3)[0] != noise()).any(axis=(1, 2, 3))
    assert 0.22 < changed.mean() < 0.38


def replaced(images) -> tuple[np.ndarray, np.ndarray]:
    """For each image, whether T1 and whether post-contrast T1 are bitwise equal to FLAIR."""
    return tuple((images[..., channel] == images[..., 1]).all(axis=(1, 2)) for channel in (0, 2))


def test_flair_replaces_one_or_both_other_sequences():
    images, masks = run(noise(), lopsided(), range(300), missing_sequence=1.0)
    before, after = replaced(images)
    same = (images == noise()).all(axis=(1, 2))  # (seed, channel)
    np.testing.assert_array_equal(same, np.stack([~before, np.ones(300, bool), ~after], axis=1))
    kinds = np.array([(before & ~after).mean(), (after & ~before).mean(), (before & after).mean()])
    assert kinds.sum() == 1 and kinds.min() > 0.25
    before, after = replaced(run(noise(), lopsided(), range(300), missing_sequence=0.2)[0])
    assert 0.13 < (before | after).mean() < 0.27
    assert (masks == lopsided()).all()


def test_a_missing_sequence_is_bitwise_flair_with_every_other_augmentation():
    before, after = replaced(run(noise(), lopsided(), range(20), missing_sequence=1.0, **ALL, **INTENSITY)[0])
    assert (before | after).all()


def test_neighbouring_slices_are_augmented_alike():
    """Three slices as nine channels have the same geometry, intensities and missing sequences."""
    image = np.concatenate([noise()] * 3, axis=-1)
    images, _ = run(image, lopsided(), range(20), missing_sequence=0.5, **ALL, **INTENSITY)
    assert images.shape == (20, SIZE, SIZE, 9)
    np.testing.assert_array_equal(images[..., 3:], np.concatenate([images[..., :3]] * 2, axis=-1))
    alone = run(noise(), lopsided(), range(20), missing_sequence=0.5, **ALL, **INTENSITY)[0]
    np.testing.assert_allclose(images[..., :3], alone, atol=1e-6)  # TensorFlow may add in another order


@pytest.mark.parametrize("copies", [(0,), (2,), (0, 2)])
def test_a_sequence_that_the_data_set_replaced_by_flair_stays_flair(copies):
    image = noise()
    image[..., list(copies)] = image[..., 1:2]
    images, _ = run(image, lopsided(), range(10), **ALL, **INTENSITY)
    for channel in (0, 2):
        same = [np.array_equal(result[..., channel], result[..., 1]) for result in images]
        assert same == [channel in copies] * 10


def test_intensity_does_not_change_the_geometry():
    plain = run(noise(), lopsided(), range(10), **ALL)[1]
    np.testing.assert_array_equal(run(noise(), lopsided(), range(10), **EVERYTHING | ALL)[1], plain)


def test_intensity_changes_do_not_depend_on_each_other():
    image = np.ones((SIZE, SIZE, 3), np.float32)
    kinds = {"contrast": 0.2}, {"brightness": 0.2}, {"bias_field": 1.0}, INTENSITY
    contrast, brightness, field, both = (run(image, lopsided(), range(5), **fields)[0] for fields in kinds)
    np.testing.assert_allclose(both, contrast + brightness + field - 2, atol=1e-5)
    beside = run(image, lopsided(), range(5), **ALL, **INTENSITY)[0]
    np.testing.assert_allclose(beside, both, atol=1e-5)
