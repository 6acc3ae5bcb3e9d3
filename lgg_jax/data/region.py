"""What of a slice the classifier sees: all of the head, the tumour alone, or the square around it.

    images = region_images(scan, scan.mask, config.data)     # (slice, size, size, channel) float32
    masks = region_masks(scan, scan.mask, config.data)       # (slice, size, size) float32, on the same grid

`config.region` is one of

    slice    the head of every slice (`config.crop`) or the whole image;
    masked   the same, and 0 (the brain's median, as images are normalised) wherever the tumour is further away than 5 %
             of the side; a slice without tumour is 0 everywhere;
    crop     the square around the tumour, the same for every slice of a volume. Where the volume has no tumour it is
             the head: no patient is dropped for a mask that came out empty.

Intensities are normalised over the whole brain whatever the region: how bright a tumour is shows only against it.
"""

import ml_collections
import numpy as np
from skimage import morphology

from lgg_jax.data.volume import Geometry, Volume, find_geometry, network_images, network_masks
from lgg_jax.errors import UserError

REGIONS = ("slice", "masked", "crop")
_MASKED_MARGIN = 0.05  # of the network's side: what the tumour does to the tissue beside it is seen too
_CROP_MARGIN = 0.25  # of the tumour's longer extent, half of it on either side
_CROP_LEAST = 32  # input pixels: a small tumour is not blown up until only interpolation is left


def region_images(scan: Volume, mask: np.ndarray | None, config: ml_collections.ConfigDict) -> np.ndarray:
    """Normalised slices of the region: (slice, size, size, channel) float32.

    Args:
      scan: the volume; its own mask is not looked at.
      mask: (slice, height, width) bool on the scan's grid, true or predicted; may be None for region "slice".
      config: `channels`, `size`, `crop` and `region`.

    Raises:
      UserError: `config.region` is unknown, or needs a mask and there is none.
    """
    images = network_images(scan.image, region_geometry(scan, mask, config), config.channels)
    if config.region == "masked":
        shares = region_masks(scan, mask, config)
        images *= near(shares > 0, round(_MASKED_MARGIN * config.size))[..., None]
    return images


def region_masks(scan: Volume, mask: np.ndarray | None, config: ml_collections.ConfigDict) -> np.ndarray:
    """The share of tumour in each pixel of `region_images`: (slice, size, size) float32 in [0, 1].

    Raises:
      UserError: as `region_images`, and without a mask whatever the region.
    """
    if mask is None:
        raise _no_mask(scan, config)
    return network_masks(mask, region_geometry(scan, mask, config))


def region_geometry(scan: Volume, mask: np.ndarray | None, config: ml_collections.ConfigDict) -> Geometry:
    """The square that `region_images` shows, in pixels of the scan."""
    if config.region not in REGIONS:
        raise UserError(f"config.data.region={config.region!r} is unknown", f"choose one of {', '.join(REGIONS)}")
    if config.region != "slice" and mask is None:
        raise _no_mask(scan, config)
    if config.region == "crop" and mask.any():
        return _around(mask, config.size)
    return find_geometry(scan.image, config.size, config.crop)


def _around(mask: np.ndarray, size: int) -> Geometry:
    """The square around the tumour of all slices; it may reach over the image's edge."""
    _, height, width = mask.shape
    rows, columns = (np.flatnonzero(mask.any(axis=axes)) for axes in ((0, 2), (0, 1)))
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    side = max(round((1 + _CROP_MARGIN) * max(bottom - top, right - left)), _CROP_LEAST)
    return Geometry(int(top + bottom - side) // 2, int(left + right - side) // 2, side, height, width, size)


def near(masks: np.ndarray, margin: int) -> np.ndarray:
    """(slice, size, size) bool: within `margin` pixels of the slice's own tumour."""
    near = np.zeros_like(masks)
    for index in np.flatnonzero(masks.any(axis=(1, 2))):
        near[index] = morphology.isotropic_dilation(masks[index], margin)
    return near


def _no_mask(scan: Volume, config: ml_collections.ConfigDict) -> UserError:
    wrong = f"patient {scan.patient} has no mask, and config.data.region={config.region} is taken from one"
    return UserError(wrong, "take the masks that a segmentation workdir predicts, or region=slice")
