"""Prediction: all rows in their place, probabilities on the grid of the scan, test-time augmentation, masks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from configs import default
from lgg_jax.data.cases import prepare_case
from lgg_jax.data.volume import Volume, foreground
from lgg_jax.inference.predictor import Postprocessing, case_probability, in_batches, make_predictor


class Scale(nn.Module):
    """Logits are `factor` times FLAIR; if `lopsided`, it decreases from left to right, to break the symmetry."""

    lopsided: bool = False

    @nn.compact
    def __call__(self, image, train: bool):
        factor = self.variable("params", "factor", lambda: jnp.ones(()))
        slope = jnp.linspace(1.0, 0.0, image.shape[2]) if self.lopsided else 1.0
        return image[..., 1] * factor.value * slope


VARIABLES = {"params": {"factor": jnp.asarray(2.0)}}


def scan(height=40, width=56, slices=3) -> Volume:
    """A bright rectangular head on a dark background, with a brighter square tumour away from the centre."""
    image = np.full((slices, height, width, 3), 3, np.uint8)
    image[:, 4:-4, 8:-8] = 90
    mask = np.zeros(image.shape[:3], bool)
    mask[1, 10:20, 12:22] = True
    image[mask] = 200
    return Volume("TCGA_CS_0001", image, mask, np.arange(1, slices + 1), {})


@pytest.mark.parametrize("count", [1, 3, 4, 5, 8, 9])
def test_every_row_is_predicted_once_and_in_order(count):
    images = np.random.default_rng(count).normal(size=(count, 4, 6, 3)).astype("float16")
    predict = make_predictor(Scale(), batch_size=4)
    probability = predict(VARIABLES, images)
    assert probability.shape == (count, 4, 6)
    assert probability.dtype == np.float32
    expected = jax.nn.sigmoid(2 * images[..., 1].astype("float32"))
    np.testing.assert_allclose(probability, expected, rtol=1e-6)


class Two(nn.Module):
    """Two outputs from two inputs, the second of any width."""

    def __call__(self, image, values, train: bool):
        return {"mask": image[..., 1], "label": image[:, 0, 0, 0] + values.sum(axis=1)}


@pytest.mark.parametrize("width", [0, 3])
@pytest.mark.parametrize("count", [1, 4, 5])
def test_several_inputs_and_outputs(count, width):
    rng = np.random.default_rng(count)
    images, values = rng.normal(size=(count, 4, 6, 3)).astype("float16"), rng.normal(size=(count, width))
    predict = make_predictor(Two(), 4, output=lambda logits: logits)
    outputs = predict(VARIABLES, images, values.astype("float32"))
    assert outputs["mask"].shape == (count, 4, 6) and outputs["label"].shape == (count,)
    np.testing.assert_allclose(outputs["mask"], images[..., 1], rtol=1e-6)
    np.testing.assert_allclose(outputs["label"], images[:, 0, 0, 0] + values.sum(axis=1), rtol=1e-3, atol=1e-3)


def test_rows_are_sharded_over_devices_and_concatenated(monkeypatch):
    """A batch size of 3 on 2 devices is rounded up to 4: 2 rows per device."""
    shapes = []

    def apply(factor, inputs):
        shapes.append(inputs[0].shape)
        return factor * inputs[0]

    monkeypatch.setattr(jax, "local_device_count", lambda: 2)
    rows = np.arange(14.0).reshape(7, 2)
    np.testing.assert_array_equal(in_batches(apply, 3)(2, rows), 2 * rows)
    assert shapes == [(2, 2, 2)] * 2


def test_flip_tta_makes_the_prediction_symmetric():
    """With test-time augmentation, the prediction for a mirrored scan is the mirror image of the prediction."""
    config = default.get_config().data
    config.size, config.crop = 16, False
    predict = make_predictor(Scale(lopsided=True), batch_size=4)
    original, mirrored = scan(32, 32), scan(32, 32)
    mirrored = Volume("m", original.image[:, :, ::-1], None, original.slice_index, {})
    cases = [prepare_case(volume, config) for volume in (original, mirrored)]
    plain = [case_probability(predict, VARIABLES, case, flip_tta=False) for case in cases]
    averaged = [case_probability(predict, VARIABLES, case, flip_tta=True) for case in cases]
    assert np.abs(plain[0] - plain[1][:, :, ::-1]).max() > 0.1
    np.testing.assert_allclose(averaged[0], averaged[1][:, :, ::-1], atol=1e-6)
    np.testing.assert_allclose(averaged[0], (plain[0] + plain[1][:, :, ::-1]) / 2, atol=1e-6)


@pytest.mark.parametrize("flip_tta", [True, False])
def test_multi_scale_inference_is_the_mean_over_grids(flip_tta):
    config = default.get_config().data
    config.size = 16
    predict = make_predictor(Scale(lopsided=True), batch_size=4)

    def probability(size: int, finer: tuple = ()) -> np.ndarray:
        return case_probability(predict, VARIABLES, prepare_case(scan(), config, size), flip_tta, finer)

    coarse, fine = probability(16), probability(48)
    assert np.abs(coarse - fine).max() > 0.1
    np.testing.assert_allclose(probability(16, (32,)), (coarse + fine) / 2, atol=1e-6)
    np.testing.assert_allclose(probability(16, (32, 32)), (coarse + 2 * fine) / 3, atol=1e-6)


@pytest.mark.parametrize("crop", [True, False])
@pytest.mark.parametrize("height, width", [(40, 56), (56, 40), (64, 64)])
def test_the_probability_is_on_the_grid_of_the_scan(height, width, crop):
    config = default.get_config().data
    config.size, config.crop = 64, crop
    volume = scan(height, width)
    case = prepare_case(volume, config)
    assert case.images.shape == (3, 64, 64, 3)
    assert case.images.dtype == np.float16
    predict = make_predictor(Scale(), batch_size=2)
    probability = case_probability(predict, VARIABLES, case, flip_tta=False)
    assert probability.shape == volume.mask.shape
    predicted = Postprocessing(threshold=0.9).mask(probability, foreground(volume.image))
    overlap = (predicted & volume.mask).sum() / (predicted | volume.mask).sum()
    assert overlap > 0.8, "the brightest square is the tumour, at the same position"


def test_mask_of_a_probability():
    probability = np.zeros((2, 4, 8), np.float32)
    probability[0, :2, :3], probability[0, 3, 7], probability[1, 0, 0] = 0.6, 0.9, 0.4
    head = np.ones((2, 9, 9), bool)
    plain = Postprocessing().mask(probability, head)
    np.testing.assert_array_equal(plain, probability >= 0.5)
    assert Postprocessing(threshold=0.6).mask(np.full((1, 1, 1), 0.6, np.float32), head).all()
    assert Postprocessing(threshold=0.3).mask(probability, head).sum() == 8
    cleaned = Postprocessing(largest_component=True).mask(probability, head)
    assert cleaned.sum() == 6
    assert not cleaned[0, 3, 7]
    ring = np.pad(np.zeros((1, 2, 2), np.float32), [(0, 0), (1, 1), (1, 1)], constant_values=0.7)
    assert Postprocessing().mask(ring, head[:1]).sum() == 12
    assert Postprocessing(fill_holes=True).mask(ring, head[:1]).sum() == 16
