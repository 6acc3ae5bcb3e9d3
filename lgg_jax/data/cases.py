"""What a network sees of one scan: the same for training, validation, evaluation and prediction.

    case = prepare_case(volume, config.data)
    case.images.shape                         # (slice, size, size, channel)
    case.on_grid(128).images.shape            # (slice, 128, 128, channel)
"""

import dataclasses
from collections.abc import Callable
from functools import partial

import ml_collections
import numpy as np

from lgg_jax.data import volume


@dataclasses.dataclass(frozen=True)
class Case:
    """A scan beside the rows that a network sees of it.

    Attributes:
      scan: as it is stored.
      geometry: the square of it that the network sees.
      images: (row, size, size, channel) float16, normalised; a row is a slice, in order.
      masks: (row, size, size) uint8, the share of the pixel that is tumour in 1/255; None where nobody has drawn one.
      tumour: (row,) bool, whether the slice shows tumour; all False without a mask.
      labels: (row,) float32, 1 or 0 as the classifier is to say; NaN where it is not known or not asked for.
      clinical: (width,) float32 as `tabular.Encoder` gives it; empty where not asked for.
      slice_index: (row,) int32, the number each slice has in its file name.
      on_grid: size → all slices of the scan on that grid, without labels; None in a case of a classifier.
    """

    scan: volume.Volume
    geometry: volume.Geometry
    images: np.ndarray
    masks: np.ndarray | None
    tumour: np.ndarray
    labels: np.ndarray
    clinical: np.ndarray
    slice_index: np.ndarray
    on_grid: Callable[[int], "Case"] | None = None

    def select(self, rows: np.ndarray) -> "Case":
        """The case with these rows only, by number or as (row,) bool."""
        names = ("images", "masks", "tumour", "labels", "slice_index")
        values = {name: getattr(self, name) for name in names}
        return dataclasses.replace(self, **{name: x if x is None else x[rows] for name, x in values.items()})


def prepare_case(scan: volume.Volume, config: ml_collections.ConfigDict, size: int = 0) -> Case:
    """All slices of a scan as the network sees them (`config.channels`, `.size`, `.crop`, `.context`), no labels.

    `size` is that of the grid where it is another than `config.size`.
    """
    geometry = volume.find_geometry(scan.image, size or config.size, config.crop)
    images = volume.network_images(scan.image, geometry, config.channels).astype(np.float16)
    case = make_case(scan, geometry, volume.with_neighbours(images, config.context))
    return dataclasses.replace(case, on_grid=partial(prepare_case, scan, config))


def make_case(
    scan: volume.Volume, geometry: volume.Geometry, images: np.ndarray, labels=None, clinical=None
) -> Case:
    """A Case of all slices of `scan`, whose `images` lie on the grid of `geometry`."""
    count = len(scan.image)
    masks, tumour = None, np.zeros(count, bool)
    if scan.mask is not None:
        masks = np.round(255 * volume.network_masks(scan.mask, geometry)).astype(np.uint8)
        tumour = scan.mask.any(axis=(1, 2))
    return Case(
        scan, geometry, images.astype(np.float16), masks, tumour,
        np.full(count, np.nan, np.float32) if labels is None else np.asarray(labels, np.float32),
        np.zeros(0, np.float32) if clinical is None else np.asarray(clinical, np.float32),
        scan.slice_index,
    )  # fmt: skip
