"""The region of a slice that the classifier sees: the whole head, the tumour alone, or the square around it.

    images = region_images(scan, scan.mask, config.data)     # (slice, size, size, channel) float32
    masks = region_masks(scan, scan.mask, config.data)       # (slice, size, size) float32, on the same grid

`config.region` is one of

    slice    the head (`config.crop`) or the whole image of every slice
    masked   as slice, but 0 (the normalised median of the brain) wherever the tumour is further away than 5 % of the
             side; a slice without tumour is 0 everywhere
    crop     the square around the tumour, the same for every slice of a volume; the head if the volume has no tumour,
             so that a patient with an empty predicted mask is kept

Intensities are always normalised over the whole brain: the brightness of a tumour is relative to it.
"""

import ml_collections
import numpy as np
from skimage import morphology

from lgg_jax.data.volume import Geometry, Volume, find_geometry, network_images, network_masks
from lgg_jax.errors import UserError

REGIONS = ("slice", "masked", "crop")
_MASKED_MARGIN = 0.05  # of the network grid's side, so that the tissue next to the tumour is visible
_CROP_MARGIN = 0.25  # of the tumour's longer extent; half of it on each side
_CROP_LEAST = 32  # least side of the square in input pixels, so that a small tumour is not magnified without detail


def region_images(scan: Volume, mask: np.ndarray | None, config: ml_collections.ConfigDict) -> np.ndarray:
    """Normalised slices of the region: (slice, size, size, channel) float32.

    Args:
      scan: the volume; its own mask is ignored.
      mask: (slice, height, width) bool on the grid of the scan, ground truth or predicted; may be None for the region
        "slice".
      config: `config.data`; `channels`, `size`, `crop` and `region` are used.

    Raises:
      UserError: `config.region` is unknown, or it needs a mask and there is none.
    """
    images = network_images(scan.image, region_geometry(scan, mask, config), config.channels)
    if config.region == "masked":
        shares = region_masks(scan, mask, config)
        images *= near(shares > 0, round(_MASKED_MARGIN * config.size))[..., None]
    return images


def region_masks(scan: Volume, mask: np.ndarray | None, config: ml_collections.ConfigDict) -> np.ndarray:
    """The tumour's share of each pixel of `region_images`: (slice, size, size) float32 in [0, 1].

    Raises:
      UserError: `config.region` is unknown, or there is no mask.
    """
    if mask is None:
        raise _no_mask(scan, config)
    return network_masks(mask, region_geometry(scan, mask, config))


def region_geometry(scan: Volume, mask: np.ndarray | None, config: ml_collections.ConfigDict) -> Geometry:
    """The square that `region_images` shows, in pixels of the scan; arguments and errors as there."""
    if config.region not in REGIONS:
        raise UserError(f"config.data.region={config.region!r} is unknown", f"choose one of {', '.join(REGIONS)}")
    if config.region != "slice" and mask is None:
        raise _no_mask(scan, config)
    if config.region == "crop" and mask.any():
        return _around(mask, config.size)
    return find_geometry(scan.image, config.size, config.crop)


def _around(mask: np.ndarray, size: int) -> Geometry:
    """The square around the tumour of all slices; it may extend beyond the image."""
    _, height, width = mask.shape
    rows, columns = (np.flatnonzero(mask.any(axis=axes)) for axes in ((0, 2), (0, 1)))
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    side = max(round((1 + _CROP_MARGIN) * max(bottom - top, right - left)), _CROP_LEAST)
    return Geometry(int(top + bottom - side) // 2, int(left + right - side) // 2, side, height, width, size)


def near(masks: np.ndarray, margin: int) -> np.ndarray:
    """The pixels within `margin` pixels of the tumour of the same slice: (slice, size, size) bool."""
    near = np.zeros_like(masks)
    for index in np.flatnonzero(masks.any(axis=(1, 2))):
        near[index] = morphology.isotropic_dilation(masks[index], margin)
    return near


def _no_mask(scan: Volume, config: ml_collections.ConfigDict) -> UserError:
    wrong = f"patient {scan.patient} has no mask, and config.data.region={config.region} needs one"
    return UserError(wrong, "set config.data.segmentation_workdir to predict masks, or use region=slice")
