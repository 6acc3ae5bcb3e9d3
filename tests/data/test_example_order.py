"""Sampling: which slice each example shows, from the slices with tumour and from all slices."""

import numpy as np
import pytest
import tensorflow as tf

from lgg_jax.data import pipeline

TUMOUR = np.isin(np.arange(20), np.arange(7) * 3)  # of 20 slices, 7 show tumour


def order(count: int, fraction: float, tumour: np.ndarray, seed=0, first=0) -> np.ndarray:
    """The slice indices of the examples `first` … `first` + `count` − 1."""

    def example(position):
        return pipeline.example_order(position, seed, tumour, fraction)

    positions = tf.data.Dataset.range(first, first + count)
    chosen = positions.map(tf.autograph.experimental.do_not_convert(example)).batch(count)
    return chosen.get_single_element().numpy()


def assert_epochs(sequence: np.ndarray, pool: np.ndarray):
    """Every epoch is a permutation of the pool, and no two epochs have the same order."""
    epochs = sequence[: len(sequence) // len(pool) * len(pool)].reshape(-1, len(pool))
    assert len(epochs) > 3
    np.testing.assert_array_equal(np.sort(epochs), np.broadcast_to(np.sort(pool), epochs.shape))
    assert len({epoch.tobytes() for epoch in epochs}) == len(epochs)


def test_without_balancing_every_epoch_shows_each_slice_once():
    assert_epochs(order(150, 0.0, TUMOUR), np.arange(20))


def test_tumour_only_shows_each_tumour_slice_once_an_epoch():
    assert_epochs(order(60, 1.0, TUMOUR), np.flatnonzero(TUMOUR))


@pytest.mark.parametrize("fraction", [0.5, 0.37, 0.001])
def test_both_streams_run_through_their_slices(fraction):
    """Of the first k examples, ⌊k × fraction⌋ come from the stream of the slices with tumour."""
    tumour, position = TUMOUR, np.arange(400)
    from_tumour = np.floor(np.round((position + 1) * fraction, 9)) > np.floor(np.round(position * fraction, 9))
    shown = order(400, fraction, tumour)
    assert tumour[shown[from_tumour]].all()
    assert_epochs(shown[~from_tumour], np.arange(20))
    if from_tumour.sum() > 30:
        assert_epochs(shown[from_tumour], np.flatnonzero(tumour))


def test_share_of_tumour_in_any_window():
    """Tumour is rare here, so nearly all slices with tumour come from their own stream."""
    tumour = np.arange(500) < 3
    shown = tumour[order(500, 0.4, tumour)]
    for length in (5, 16, 50):
        counts = np.convolve(shown, np.ones(length, int), "valid")
        assert counts.min() >= np.floor(0.4 * length) and counts.max() <= np.ceil(0.4 * length) + 3


def test_far_positions_and_other_seeds():
    tumour = TUMOUR
    here, far, other = order(60, 0.5, tumour), order(60, 0.5, tumour, first=10**12), order(60, 0.5, tumour, seed=1)
    assert (here != far).any() and (here != other).any()
    np.testing.assert_array_equal(order(30, 0.5, tumour, first=30), here[30:])


@pytest.mark.parametrize("fraction", [0.0, 0.5, 1.0])
def test_data_without_any_tumour_is_shown_evenly(fraction):
    assert_epochs(order(60, fraction, np.zeros(12, bool)), np.arange(12))


def test_a_single_slice():
    np.testing.assert_array_equal(order(5, 0.5, np.ones(1, bool)), np.zeros(5))
