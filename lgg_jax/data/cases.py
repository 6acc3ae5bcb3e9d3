"""Network input of one scan: the same for training, validation, evaluation and prediction.

    case = prepare_case(volume, config.data)
    case.images.shape                                            # (slice, size, size, channel)
    prepare_case(case.scan, case.data, 160).images.shape         # (slice, 160, 160, channel)
"""

import dataclasses

import ml_collections
import numpy as np

from lgg_jax.data import volume


@dataclasses.dataclass(frozen=True)
class Case:
    """A scan and the rows of network input that are made from it.

    Attributes:
      scan: the scan as it is stored.
      geometry: the square of the scan that the network sees.
      images: (row, size, size, channel) float16, normalised. A row is a slice; rows are in order.
      masks: (row, size, size) uint8, the tumour's share of each pixel in 1/255. None without a ground-truth mask.
      tumour: (row,) bool, whether the slice shows tumour; all False without a mask.
      labels: (row,) float32, the classification label, 0 or 1; NaN where it is unknown or not needed.
      clinical: (width,) float32 as `tabular.Encoder` encodes them; empty where not needed.
      slice_index: (row,) int32, the number of each slice in its file name.
      data: the `config.data` that `prepare_case` was called with, to prepare the scan again at another size. None in
        a classifier's case.
    """

    scan: volume.Volume
    geometry: volume.Geometry
    images: np.ndarray
    masks: np.ndarray | None
    tumour: np.ndarray
    labels: np.ndarray
    clinical: np.ndarray
    slice_index: np.ndarray
    data: ml_collections.ConfigDict | None = None

    def select(self, rows: np.ndarray) -> "Case":
        """The case with some of its rows, given by index or as (row,) bool."""
        names = ("images", "masks", "tumour", "labels", "slice_index")
        values = {name: getattr(self, name) for name in names}
        return dataclasses.replace(self, **{name: x if x is None else x[rows] for name, x in values.items()})


def prepare_case(scan: volume.Volume, config: ml_collections.ConfigDict, size: int = 0) -> Case:
    """The network input of all slices of a scan, without labels.

    Args:
      scan: the scan, with or without a mask.
      config: `config.data`; `channels`, `size`, `crop` and `context` are used.
      size: side of the network grid in pixels; 0 means `config.size`.
    """
    geometry = volume.find_geometry(scan.image, size or config.size, config.crop)
    images = volume.network_images(scan.image, geometry, config.channels).astype(np.float16)
    case = make_case(scan, geometry, volume.with_neighbours(images, config.context))
    return dataclasses.replace(case, data=config)


def make_case(
    scan: volume.Volume, geometry: volume.Geometry, images: np.ndarray, labels=None, clinical=None
) -> Case:
    """A case of all slices of a scan.

    Args:
      scan: the scan; its mask gives `masks` and `tumour`.
      geometry: the square that `images` show.
      images: (slice, size, size, channel) or (slice, feature) of any float type.
      labels: (slice,) or None: all unknown.
      clinical: (width,) or None: none.
    """
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
