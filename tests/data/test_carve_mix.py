"""CarveMix: tumour, rim and mask of the donor are copied to the same position, and nothing else changes."""

import numpy as np
import pytest
import tensorflow as tf
from scipy import ndimage

from configs import default
from lgg_jax.data import augment, pipeline

SIZE = 24
rng = np.random.default_rng(0)
IMAGE, DONOR = rng.normal(size=(2, SIZE, SIZE, 3)).astype(np.float32)
OWN, TUMOUR = np.zeros((2, SIZE, SIZE), np.float32)
OWN[14:22, 3:9] = 1  # overlaps the tumour of the donor in part
TUMOUR[10:17, 2:7] = 1


def mixed(number: int, probability: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    seed = tf.constant([3, number], tf.int64)
    image, mask = augment.carve_mix(*map(tf.constant, (IMAGE, OWN, DONOR, TUMOUR)), seed, probability)
    return image.numpy(), mask.numpy()


def test_tumour_rim_and_mask_come_from_the_donor_and_the_rest_from_the_slice():
    sides = set()
    for number in range(12):
        image, mask = mixed(number)
        mirrored = not np.array_equal(image[10:17, 2:7], DONOR[10:17, 2:7])
        donor, tumour = (DONOR[:, ::-1], TUMOUR[:, ::-1]) if mirrored else (DONOR, TUMOUR)
        near = ndimage.binary_dilation(tumour, np.ones((5, 5)))
        core, beyond = ndimage.binary_erosion(near, np.ones((3, 3))), ~ndimage.binary_dilation(near, np.ones((3, 3)))
        np.testing.assert_allclose(image[core], donor[core], rtol=1e-6)
        np.testing.assert_array_equal(image[beyond], IMAGE[beyond])
        np.testing.assert_array_equal(mask[core], tumour[core])
        np.testing.assert_array_equal(mask[beyond], OWN[beyond])
        assert mask[core].sum() == tumour.sum()
        sides.add(mirrored)
    assert sides == {False, True}


def test_the_seam_is_a_blend():
    image, _ = next(pair for pair in map(mixed, range(12)) if np.array_equal(pair[0][10:17, 2:7], DONOR[10:17, 2:7]))
    row, edge = 13, slice(8, 10)  # the rim ends at column 8
    share = (image[row, edge] - IMAGE[row, edge]) / (DONOR[row, edge] - IMAGE[row, edge])
    np.testing.assert_allclose(share, [[2 / 3] * 3, [1 / 3] * 3], rtol=1e-3)


@pytest.mark.parametrize("probability", [0.0, 0.3])
def test_frequency_is_the_probability_of_the_config(probability):
    changed = np.mean([not np.array_equal(mixed(number, probability)[0], IMAGE) for number in range(300)])
    assert abs(changed - probability) <= (0.08 if probability else 0)


@pytest.mark.parametrize("own_missing, donor_missing", [((), (2,)), ((0,), ()), ((0,), (2,)), ((0, 2), (0, 2))])
def test_a_sequence_missing_in_either_slice_is_flair_everywhere(own_missing, donor_missing):
    """FLAIR is channel 1. It replaces a missing sequence in the whole slice, not only in the tumour."""
    image, donor = IMAGE.copy(), DONOR.copy()
    image[..., list(own_missing)], donor[..., list(donor_missing)] = image[..., 1:2], donor[..., 1:2]
    for number, probability in [(0, 1.0), (1, 1.0), (0, 0.0)]:
        seed = tf.constant([3, number], tf.int64)
        mix = augment.carve_mix(*map(tf.constant, (image, OWN, donor, TUMOUR)), seed, probability)[0].numpy()
        expected = set(own_missing) | (set(donor_missing) if probability else set())
        copies = {channel for channel in (0, 2) if np.array_equal(mix[..., channel], mix[..., 1])}
        assert copies == expected
        np.testing.assert_allclose(mix[..., 1], mixed(number, probability)[0][..., 1])


def test_the_pipeline_takes_donors_from_slices_with_tumour():
    count = 6
    image = np.broadcast_to(np.arange(count, dtype=np.float16)[:, None, None, None], (count, SIZE, SIZE, 3))
    tumour = np.arange(count) % 2 == 1
    mask = np.zeros((count, SIZE, SIZE), np.uint8)
    mask[tumour, 9:15, 9:15] = 255
    slices = pipeline.Slices(image, mask, tumour, np.full(count, np.nan, np.float32), np.zeros((count, 0), np.float32))
    config = default.get_config()
    config.augment.update({name: 0.0 for name in config.augment if name != "crop_scale"} | {"carve_mix": 1.0})
    config.augment.crop_scale = (1.0, 1.0)
    config.data.tumour_fraction = 0.0
    batches = list(pipeline.train_batches(slices, config, 0, 10))
    inside, corner = (np.concatenate([batch["image"][:, at, at, 0] for batch in batches]) for at in (11, 0))
    assert set(inside) == {1, 3, 5} and set(corner) == set(range(count))
    # The donor does not depend on the slice.
    assert len(set(zip(inside, corner, strict=True))) == 3 * count
    assert all(batch["mask"].sum(axis=(1, 2)).min() >= 36 for batch in batches)
