"""Prediction: from a scan to tumour probabilities and a mask on the grid of the scan.

    predict = make_predictor(model, batch_size=16)
    case = cases.prepare_case(volume, config.data)
    probability = case_probability(predict, variables, case, flip_tta=True, finer=(16, 32))  # (slice, height, width)

Validation, evaluation and prediction all use this module.
"""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from lgg_jax import parallel
from lgg_jax.data import volume
from lgg_jax.data.cases import Case, prepare_case
from lgg_jax.inference import postprocess

Predictor = Callable[..., np.ndarray]


@dataclasses.dataclass(frozen=True)
class Postprocessing:
    """Inference and post-processing options, fixed or chosen on the validation set; saved as `postprocess.json`.

    Attributes:
      flip_tta: whether the probability is the mean over a slice and its mirror image (test-time augmentation).
      largest_component: whether `postprocess.largest_component` is applied.
      fill_holes: whether `postprocess.fill_holes` is applied.
      threshold: pixels with a probability at or above it are tumour.
      finer: pixels to add to the side of the network grid; the probability is the mean over all grids.
    """

    flip_tta: bool = False
    largest_component: bool = False
    fill_holes: bool = False
    threshold: float = 0.5
    finer: Sequence[int] = ()

    def mask(self, probability: np.ndarray, head: np.ndarray) -> np.ndarray:
        """Apply the threshold and the post-processing.

        Args:
          probability: (slice, height, width) float32.
          head: (slice, height, width) bool, `volume.foreground` of the scan.

        Returns:
          (slice, height, width) bool.
        """
        mask = probability >= self.threshold
        mask = postprocess.largest_component(mask, probability, head) if self.largest_component else mask
        return postprocess.fill_holes(mask) if self.fill_holes else mask


def make_predictor(model: nn.Module, batch_size: int, output: Callable = jax.nn.sigmoid) -> Predictor:
    """A function (variables, *inputs) → outputs as NumPy arrays, for any number n of rows.

    Args:
      model: takes inputs (batch, …), such as images and clinical values.
      batch_size: rows in a batch, over all devices of this host; rounded up to a multiple of their number.
      output: applied to the logits of the model.
    """

    def apply(variables, inputs):
        inputs = [x.astype(jnp.float32) for x in inputs]
        return output(model.apply(variables, *inputs, train=False))

    return in_batches(parallel.map_local(apply), batch_size)


def in_batches(apply: Callable, batch_size: int) -> Predictor:
    """A function (variables, *inputs) that calls `apply` on batches and concatenates the results as NumPy arrays.

    The last batch is padded with its own first rows, and the padding is removed from the result. All batches therefore
    have the same shape, which is compiled once, and no row is dropped.

    Args:
      apply: (variables, inputs) → a tree of outputs; all arrays are (devices, rows / devices, …).
      batch_size: as for `make_predictor`.
    """
    devices = parallel.local_devices()
    batch_size = -(-batch_size // devices) * devices

    def predict(variables: dict, *inputs: np.ndarray):
        parts = []
        for start in range(0, len(inputs[0]), batch_size):
            rows = [x[start : start + batch_size] for x in inputs]
            full = [np.resize(x, (batch_size, *x.shape[1:])) for x in rows]
            parts.append(jax.tree.map(partial(_rows, count=len(rows[0])), apply(variables, parallel.shard(full))))
        return jax.tree.map(lambda *x: np.concatenate(x), *parts)

    return predict


def _rows(output: jax.Array, count: int) -> np.ndarray:
    """(devices, rows / devices, …) → the first `count` rows, (count, …)."""
    return np.asarray(output).reshape(-1, *output.shape[2:])[:count]


def case_probability(
    predict: Predictor, variables: dict, case: Case, flip_tta: bool, finer: Sequence[int] = ()
) -> np.ndarray:
    """The probability of tumour on the grid of the scan: (slice, height, width) float32.

    Args:
      predict: (variables, images) → probabilities.
      variables: variables of the model.
      case: a case that `prepare_case` returned.
      flip_tta: whether to average over each slice and its mirror image.
      finer: pixels to add to the side of the network grid, for multi-scale inference. The result is the mean over the
        grid of the case and these finer grids. The network is convolutional, so any grid is allowed.
    """
    grids = [case, *(prepare_case(case.scan, case.data, case.geometry.size + more) for more in finer)]
    return np.mean([_grid_probability(predict, variables, grid, flip_tta) for grid in grids], axis=0, dtype=np.float32)


def _grid_probability(predict: Predictor, variables: dict, case: Case, flip_tta: bool) -> np.ndarray:
    probability = predict(variables, case.images)
    if flip_tta:
        mirrored = predict(variables, case.images[:, :, ::-1])
        probability = (probability + mirrored[:, :, ::-1]) / 2
    return volume.input_grid(probability, case.geometry)


def case_mask(predict: Predictor, variables: dict, case: Case, chosen: Postprocessing) -> np.ndarray:
    """The predicted mask on the grid of the scan: (slice, height, width) bool."""
    probability = case_probability(predict, variables, case, chosen.flip_tta, chosen.finer)
    return chosen.mask(probability, volume.foreground(case.scan.image))
