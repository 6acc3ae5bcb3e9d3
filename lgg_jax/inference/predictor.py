"""From a scan to a probability on the scan's own grid: the one path that validation, evaluate and predict take.

    predict = make_predictor(model, batch_size=16)
    case = cases.prepare_case(volume, config.data)
    probability = case_probability(predict, variables, case, flip_tta=True, finer=(16, 32))  # (slice, height, width)
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
    """How probabilities become a mask; fixed or chosen on validation, and saved as `postprocess.json`."""

    flip_tta: bool = False
    largest_component: bool = False
    fill_holes: bool = False
    threshold: float = 0.5
    finer: Sequence[int] = ()

    def mask(self, probability: np.ndarray, head: np.ndarray) -> np.ndarray:
        """(slice, height, width) float32 → bool; `head` (the same shape, bool) is `volume.foreground` of the scan."""
        mask = probability >= self.threshold
        mask = postprocess.largest_component(mask, probability, head) if self.largest_component else mask
        return postprocess.fill_holes(mask) if self.fill_holes else mask


def make_predictor(model: nn.Module, batch_size: int, output: Callable = jax.nn.sigmoid) -> Predictor:
    """A function (variables, *inputs) → `output` of the model's logits as NumPy, for any number n of rows.

    Each input is (n, …), an image or what else the model takes. The last batch is filled up with its own first rows
    and cut again: every shape is compiled once, nothing dropped.
    """

    def apply(variables, inputs):
        inputs = [x.astype(jnp.float32) for x in inputs]
        return output(model.apply(variables, *inputs, train=False))

    return in_batches(parallel.map_local(apply), batch_size)


def in_batches(apply: Callable, batch_size: int) -> Predictor:
    """`apply`(variables, inputs) over all devices of this host, called with inputs of any length."""
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
    """(devices, rows / devices, …) → the first `count` rows."""
    return np.asarray(output).reshape(-1, *output.shape[2:])[:count]


def case_probability(
    predict: Predictor, variables: dict, case: Case, flip_tta: bool, finer: Sequence[int] = ()
) -> np.ndarray:
    """Probability of tumour on the scan's grid, (slice, height, width) float32.

    Args:
      flip_tta: mean with its mirror's.
      finer: mean with those on grids of so many pixels more than the case's own. The network is convolutional, so it
        can be shown finer slices than it is trained on.
    """
    grids = [case, *(prepare_case(case.scan, case.data, case.geometry.size + more) for more in finer)]
    return np.mean([_grid_probability(predict, variables, grid, flip_tta) for grid in grids], axis=0, dtype=np.float32)


def _grid_probability(predict: Predictor, variables: dict, case: Case, flip_tta: bool) -> np.ndarray:
    probability = predict(variables, case.images)
    if flip_tta:
        flipped = predict(variables, case.images[:, :, ::-1])
        probability = (probability + flipped[:, :, ::-1]) / 2
    return volume.input_grid(probability, case.geometry)


def case_mask(predict: Predictor, variables: dict, case: Case, chosen: Postprocessing) -> np.ndarray:
    """What is called tumour on the scan's grid, (slice, height, width) bool."""
    probability = case_probability(predict, variables, case, chosen.flip_tta, chosen.finer)
    return chosen.mask(probability, volume.foreground(case.scan.image))
