"""From a scan to a probability on the scan's own grid: the one path that validation, evaluate and predict take.

    predict = make_predictor(model, batch_size=16)
    case = prepare_case(volume, config.data)
    probability = case_probability(predict, variables, case, flip_tta=True)    # (slice, height, width)
"""

import dataclasses
from collections.abc import Callable

import jax
import ml_collections
import numpy as np
from flax import linen as nn

from lgg_jax import parallel, postprocess
from lgg_jax.data import volume

Predictor = Callable[[dict, np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Case:
    """A scan beside what the network sees of it: images (slice, size, size, channel) float16."""

    scan: volume.Volume
    geometry: volume.Geometry
    images: np.ndarray


@dataclasses.dataclass(frozen=True)
class Postprocessing:
    """How a probability becomes a mask; chosen on validation and saved as `postprocess.json`."""

    flip_tta: bool = False
    largest_component: bool = False
    threshold: float = 0.5

    def mask(self, probability: np.ndarray) -> np.ndarray:
        """(slice, height, width) float32 → bool."""
        mask = probability >= self.threshold
        return postprocess.largest_component(mask) if self.largest_component else mask


def prepare_case(scan: volume.Volume, config: ml_collections.ConfigDict) -> Case:
    """Brings a volume onto the network's grid (`config.size`, `config.crop`), exactly as for training."""
    geometry = volume.find_geometry(scan.image, config.size, config.crop)
    images = volume.network_images(scan.image, geometry).astype(np.float16)
    return Case(scan, geometry, volume.with_neighbours(images, config.context))


def make_predictor(model: nn.Module, batch_size: int) -> Predictor:
    """A function (variables, images (n, size, size, channel)) → probabilities (n, size, size) float32, any n.

    The last batch is filled up with its own first rows and cut again: every shape is compiled once, nothing dropped.
    """
    devices = jax.local_device_count()
    batch_size = -(-batch_size // devices) * devices
    apply = parallel.map_local(
        lambda variables, images: jax.nn.sigmoid(model.apply(variables, images.astype("float32"), train=False))
    )

    def predict(variables: dict, images: np.ndarray) -> np.ndarray:
        parts = []
        for start in range(0, len(images), batch_size):
            rows = images[start : start + batch_size]
            full = np.resize(rows, (batch_size, *rows.shape[1:]))
            output = np.asarray(apply(variables, parallel.shard(full)))
            parts.append(output.reshape(batch_size, *output.shape[2:])[: len(rows)])
        return np.concatenate(parts)

    return predict


def case_probability(predict: Predictor, variables: dict, case: Case, flip_tta: bool) -> np.ndarray:
    """Probability of tumour on the scan's grid, (slice, height, width) float32; `flip_tta`: mean with its mirror's."""
    probability = predict(variables, case.images)
    if flip_tta:
        flipped = predict(variables, case.images[:, :, ::-1])
        probability = (probability + flipped[:, :, ::-1]) / 2
    return volume.input_grid(probability, case.geometry)
