"""Losses: values computed by hand, independent formulas and edge cases."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lgg_jax.parallel import AXIS, all_sum
from lgg_jax.training.losses import bce, focal_tversky, label_bce, soft_dice

LOSSES = {"bce": bce, "soft_dice": soft_dice, "focal_tversky": focal_tversky}
every_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)


def example(rows=4, seed=0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """logits and mask (rows, 6, 5), weight (rows,) of ones; the last row has no tumour."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(scale=2, size=(rows, 6, 5)).astype(np.float32)
    mask = (rng.random((rows, 6, 5)) < 0.3).astype(np.float32)
    mask[-1] = 0
    return logits, mask, np.ones(rows, np.float32)


def sums(logits, mask) -> tuple[float, float, float]:
    """Soft true positives, false positives and false negatives in double precision."""
    p, t = 1 / (1 + np.exp(-logits.astype(np.float64))), mask.astype(np.float64)
    return (p * t).sum(), (p * (1 - t)).sum(), ((1 - p) * t).sum()


# Two pixels with the probabilities 3/4 and 1/2; only the first is tumour.
TWO = jnp.array([[[np.log(3.0), 0.0]]]), jnp.array([[[1.0, 0.0]]]), jnp.ones(1)


def test_values_computed_by_hand():
    assert bce(*TWO) == pytest.approx((np.log(4 / 3) + np.log(2)) / 2)
    assert bce(*TWO, positive_weight=3.0) == pytest.approx((3 * np.log(4 / 3) + np.log(2)) / 2)
    assert soft_dice(*TWO) == pytest.approx(1 - (2 * 0.75 + 1) / (1.25 + 1 + 1))
    # TP 3/4, FP 1/2, FN 1/4: TI = 1.75 / (1.75 + 0.3 / 2 + 0.7 / 4).
    assert focal_tversky(*TWO) == pytest.approx((1 - 1.75 / 2.075) ** 0.75)
    assert focal_tversky(*TWO, 0.5, 0.25, 1.0) == pytest.approx(1 - 1.75 / (1.75 + 0.25 + 0.0625))


@pytest.mark.parametrize("positive_weight", [1.0, 0.5, 7.0])
def test_bce_against_the_formula(positive_weight):
    logits, mask, weight = example()
    p = 1 / (1 + np.exp(-logits.astype(np.float64)))
    expected = -np.mean(positive_weight * mask * np.log(p) + (1 - mask) * np.log(1 - p))
    assert bce(logits, mask, weight, positive_weight) == pytest.approx(expected, rel=1e-5)


def test_soft_dice_against_the_formula():
    logits, mask, weight = example()
    tp, fp, fn = sums(logits, mask)
    assert soft_dice(logits, mask, weight) == pytest.approx(1 - (2 * tp + 1) / (2 * tp + fp + fn + 1), rel=1e-5)


@pytest.mark.parametrize("alpha, beta, gamma", [(0.3, 0.7, 0.75), (0.7, 0.3, 1.0), (1.0, 1.0, 2.0)])
def test_focal_tversky_against_the_formula(alpha, beta, gamma):
    logits, mask, weight = example()
    tp, fp, fn = sums(logits, mask)
    expected = (1 - (tp + 1) / (tp + alpha * fp + beta * fn + 1)) ** gamma
    assert focal_tversky(logits, mask, weight, alpha, beta, gamma) == pytest.approx(expected, rel=1e-5)


def test_focal_tversky_is_soft_dice_at_one_half():
    """With α = β = 1/2 and γ = 1, the loss is 1 − Dice with a smoothing term of 2 instead of 1."""
    logits, mask, weight = example()
    tp, fp, fn = sums(logits, mask)
    dice = (2 * tp + 2) / (2 * tp + fp + fn + 2)
    assert focal_tversky(logits, mask, weight, 0.5, 0.5, 1.0) == pytest.approx(1 - dice, rel=1e-5)


def test_beta_weights_false_negatives():
    mask, weight = np.zeros((1, 4, 4), np.float32), np.ones(1)
    mask[0, :2] = 1
    missed, false_alarm = np.full((1, 4, 4), -9.0, np.float32), np.full((1, 4, 4), -9.0, np.float32)
    missed[0, :1], false_alarm[0, :3] = 9, 9
    assert focal_tversky(missed, mask, weight) > focal_tversky(false_alarm, mask, weight)
    assert focal_tversky(missed, mask, weight, 0.7, 0.3) < focal_tversky(false_alarm, mask, weight, 0.7, 0.3)


@every_loss
@pytest.mark.parametrize("filled", [0.0, 1.0], ids=["empty mask", "full mask"])
def test_uniform_masks(loss, filled):
    mask, weight = np.full((2, 8, 8), filled, np.float32), np.ones(2)
    right = np.full((2, 8, 8), 20.0 if filled else -20.0, np.float32)
    assert float(loss(right, mask, weight)) == pytest.approx(0, abs=1e-4)
    worst = float(loss(-right, mask, weight))
    assert np.isfinite(worst) and worst > 0.9
    assert float(loss(np.zeros_like(right), mask, weight)) < worst


def test_a_batch_without_tumour_lowers_the_predictions():
    logits, mask = np.zeros((2, 8, 8), np.float32), np.zeros((2, 8, 8), np.float32)
    for loss in LOSSES.values():
        assert (jax.grad(loss)(logits, mask, np.ones(2)) > 0).all()


@every_loss
def test_rows_of_weight_0_are_ignored(loss):
    logits, mask, weight = example(6)
    filled = weight.copy()
    filled[[1, 4]] = 0
    kept = filled > 0
    value, gradient = jax.value_and_grad(loss)(logits, mask, filled)
    expected, expected_gradient = jax.value_and_grad(loss)(logits[kept], mask[kept], weight[kept])
    assert value == pytest.approx(float(expected), rel=1e-6)
    np.testing.assert_allclose(gradient[kept], expected_gradient, rtol=1e-4, atol=1e-8)
    assert not np.asarray(gradient)[~kept].any()


@every_loss
def test_a_batch_of_padding_alone(loss):
    logits, mask, weight = example()
    value, gradient = jax.value_and_grad(loss)(logits, mask, 0 * weight)
    assert np.isfinite(value) and not gradient.any()


@every_loss
@pytest.mark.parametrize("scale", [50.0, 1e4, 1e30])
@pytest.mark.parametrize("side", [1, -1], ids=["right", "wrong"])
def test_extreme_logits(loss, scale, side):
    _, mask, weight = example()
    logits = (scale * side * (2 * mask - 1)).astype(np.float32)
    value, gradient = jax.value_and_grad(loss)(logits, mask, weight)
    assert np.isfinite(value) and np.isfinite(gradient).all()
    assert (value < 1e-3) if side == 1 else (value > 0.9)


def test_bce_of_wrong_logits_grows_with_them():
    """Because it is computed from logits: from a probability of exactly 0 or 1, value and gradient would be limited."""
    _, mask, weight = example()
    value, gradient = jax.value_and_grad(bce)((200 * (1 - 2 * mask)).astype(np.float32), mask, weight)
    assert value == pytest.approx(200, rel=1e-5)
    np.testing.assert_allclose(np.abs(gradient), 1 / mask.size, rtol=1e-5)


@every_loss
def test_gradient_against_finite_differences(loss):
    logits, mask, weight = example(2)
    gradient = jax.grad(loss)(logits, mask, weight)
    direction = np.random.default_rng(3).normal(size=logits.shape).astype(np.float32)
    above, below = (float(loss(logits + step * direction, mask, weight)) for step in (1e-2, -1e-2))
    assert (above - below) / 2e-2 == pytest.approx(float((gradient * direction).sum()), rel=2e-2)


@every_loss
@pytest.mark.parametrize("devices", [2, 4])
def test_the_loss_over_several_devices_is_that_of_the_whole_batch(loss, devices):
    """The shards differ in tumour and in the number of padded rows, so the mean of their losses would be wrong."""
    logits, mask, weight = example(8)
    mask[:3] = 0
    weight[-2:] = 0
    expected, expected_gradient = jax.value_and_grad(loss)(logits, mask, weight)

    def on_device(logits, mask, weight):
        return loss(logits, mask, weight, all_sum=all_sum)

    shards = [x.reshape(devices, -1, *x.shape[1:]) for x in (logits, mask, weight)]
    values, gradients = jax.vmap(jax.value_and_grad(on_device), axis_name=AXIS)(*shards)
    np.testing.assert_allclose(values, np.full(devices, expected), rtol=1e-5)
    # Each device differentiates the sum of the equal losses of all devices; `train_step` averages the gradients.
    np.testing.assert_allclose(gradients.reshape(logits.shape) / devices, expected_gradient, rtol=1e-3, atol=1e-7)


LABELLED = np.float32([2, -1, 0.5, -3]), np.float32([1, 0, 0, 1]), np.float32([1, 1, 0, 1])


@pytest.mark.parametrize("positive_weight", [1.0, 4.0])
def test_label_bce_against_the_formula(positive_weight):
    positive, negative = np.log1p(np.exp(-2)) + np.log1p(np.exp(3)), np.log1p(np.exp(-1))
    expected = (positive_weight * positive + negative) / 3
    assert label_bce(*LABELLED, positive_weight) == pytest.approx(expected, rel=1e-6)


def test_an_unknown_label_has_no_gradient():
    logits, label, weight = LABELLED
    gradient = jax.grad(label_bce)(logits, label, weight)
    p = 1 / (1 + np.exp(-logits))
    np.testing.assert_allclose(gradient, (p - label) * weight / 3, rtol=1e-5)
    value, gradient = jax.value_and_grad(label_bce)(logits, label, 0 * weight)
    assert value == 0 and not gradient.any()


def test_label_bce_of_wrong_extreme_logits_is_finite():
    value, gradient = jax.value_and_grad(label_bce)(np.float32([1e30, -1e4]), np.float32([1, 1]), np.ones(2))
    assert value == pytest.approx(5e3) and np.isfinite(gradient).all()


def test_label_bce_over_two_devices():
    """One of them has no known label."""
    logits, label, weight = (np.tile(x, 2) for x in LABELLED)
    weight[4:] = 0
    shards = [x.reshape(2, 4) for x in (logits, label, weight)]
    values = jax.vmap(lambda *x: label_bce(*x, 2.0, all_sum), axis_name=AXIS)(*shards)
    np.testing.assert_allclose(values, np.full(2, label_bce(logits, label, weight, 2.0)), rtol=1e-6)
