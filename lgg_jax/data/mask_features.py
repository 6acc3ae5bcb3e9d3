"""Shape, location and intensity features of a segmented tumour: input of the grade prediction.

    features = mask_features(scan, scan.mask)   # {"volume_share": 0.041, "enhancement": None, …}; None without tumour

The data has neither pixel size nor slice distance, so every length is relative to the head:

    S      side of the square around the head (`volume.find_geometry`)
    z      intensity in spreads above the median of the whole brain (`volume.normalise`)
    A      tumour in the slice where its area is largest
    rim    brain (`volume.inside`) within 0.05 S of the tumour of the same slice

    feature             unit    formula
    volume_share        1       tumour voxels / head voxels
    slice_share         1       slices with tumour / slices
    area_share          1       pixels of A / head pixels of the slice with most of them
    elongation          1       1 - minor / major axis of the ellipse with the second moments of A; 0: circle
    solidity            1       pixels of A / pixels of its convex hull
    irregularity        1       perimeter² / (4π area) of A; 1: circle, more: lobes, spikes or several parts
    lateral             1       |x| / S, x: distance of the centroid from the middle of the square; 0: midline
    side                -1, 1   sign of x; 1: in the right half of the image
    crossing            1       share of the tumour in the half opposite to its centroid
    posterior           1       centroid between the top (0: forehead) and the bottom of the square (1)
    height              1       centroid between the first (0) and the last slice (1)
    flair_mean          z       mean FLAIR of the tumour
    flair_std           z       standard deviation of the tumour's FLAIR
    flair_p10           z       10th percentile of the tumour's FLAIR; low for a cystic or suppressed core
    flair_contrast      z       mean FLAIR of the tumour - mean FLAIR of the rim
    enhancement         z       mean (post-contrast - pre-contrast) of the tumour - the same mean of the rim
    enhancement_p95     z       95th percentile of that difference in the tumour - its mean in the rim
    post_std            z       post-contrast standard deviation of the tumour; measures heterogeneity
    post_low_share      1       share of the tumour > 1 z below the post-contrast mean of the rim; necrosis, oedema

Shape and location follow Mazurowski et al. 2017. Side, enhancement, necrosis and crossing the midline are VASARI terms.
"""

import numpy as np
from skimage import measure

from lgg_jax.data.region import near
from lgg_jax.data.volume import (
    CHANNELS,
    Geometry,
    Volume,
    find_geometry,
    foreground,
    inside,
    missing_sequences,
    normalise,
)

SHAPE = ("volume_share", "slice_share", "area_share", "elongation", "solidity", "irregularity")
PLACE = ("lateral", "side", "crossing", "posterior", "height")
INTENSITY = ("flair_mean", "flair_std", "flair_p10", "flair_contrast",
             "enhancement", "enhancement_p95", "post_std", "post_low_share")  # fmt: skip
FEATURES = SHAPE + PLACE + INTENSITY

_RIM = 0.05  # width of the rim in units of S
_LOW = 1.0  # z


def mask_features(scan: Volume, mask: np.ndarray) -> dict[str, float | None] | None:
    """The features in the table above, of one patient.

    Args:
      scan: the volume; its own mask is ignored.
      mask: (slice, height, width) bool on the grid of the scan, ground truth or predicted.

    Returns:
      {feature: value} for FEATURES, or None if the mask is empty. A post-contrast feature is None if that sequence is
      missing (replaced by FLAIR). The enhancement is None if pre- or post-contrast is missing. A feature that compares
      with the rim is None if there is no rim.
    """
    if not mask.any():
        return None
    head = foreground(scan.image)
    square = find_geometry(scan.image, size=1)
    values = {**_shape(mask, head), **_place(mask, square), **_intensity(scan.image, mask, head, square)}
    return {name: None if values[name] is None else float(values[name]) for name in FEATURES}


def _shape(mask: np.ndarray, head: np.ndarray) -> dict[str, float]:
    areas, head_areas = mask.sum(axis=(1, 2)), head.sum(axis=(1, 2))
    largest = np.pad(mask[areas.argmax()], 1).astype(np.uint8)  # all parts of the mask form one region
    (region,) = measure.regionprops(largest)
    major, minor = region.axis_major_length, region.axis_minor_length
    return {
        "volume_share": areas.sum() / max(head_areas.sum(), 1),
        "slice_share": np.mean(areas > 0),
        "area_share": areas.max() / max(head_areas.max(), 1),
        "elongation": 1 - minor / major if major else 0.0,
        "solidity": region.solidity,
        "irregularity": region.perimeter_crofton**2 / (4 * np.pi * region.area),
    }


def _place(mask: np.ndarray, square: Geometry) -> dict[str, float]:
    slices, rows, columns = np.nonzero(mask)
    across = (columns + 0.5 - square.left) / square.side - 0.5
    middle = across.mean()
    return {
        "lateral": abs(middle),
        "side": 1.0 if middle > 0 else -1.0,
        "crossing": np.mean((across > 0) != (middle > 0)),
        "posterior": (rows.mean() + 0.5 - square.top) / square.side,
        "height": slices.mean() / max(len(mask) - 1, 1),
    }


def _intensity(image: np.ndarray, mask: np.ndarray, head: np.ndarray, square: Geometry) -> dict[str, float | None]:
    brain = inside(head)
    rim = near(mask, round(_RIM * square.side)) & brain & ~mask
    tissue = brain | mask  # most of the image is air; leaving it out halves the time
    values, brain, tumour, rim = image[tissue], brain[tissue], mask[tissue], rim[tissue]
    pre, flair, post = (normalise(values[:, channel], brain) for channel in range(3))
    features = dict.fromkeys(INTENSITY) | _of_flair(flair[tumour], flair[rim])
    missing = missing_sequences(image[..., :3])  # no feature uses T2
    if CHANNELS[2] not in missing:
        features |= _of_post(post[tumour], post[rim])
    if not missing:
        features |= _of_enhancement(post[tumour] - pre[tumour], post[rim] - pre[rim])
    return features


def _of_flair(tumour: np.ndarray, rim: np.ndarray) -> dict[str, float | None]:
    return {
        "flair_mean": tumour.mean(),
        "flair_std": tumour.std(),
        "flair_p10": np.percentile(tumour, 10),
        "flair_contrast": tumour.mean() - rim.mean() if rim.size else None,
    }


def _of_post(tumour: np.ndarray, rim: np.ndarray) -> dict[str, float | None]:
    return {"post_std": tumour.std(), "post_low_share": np.mean(tumour < rim.mean() - _LOW) if rim.size else None}


def _of_enhancement(tumour: np.ndarray, rim: np.ndarray) -> dict[str, float | None]:
    if not rim.size:
        return {}
    return {"enhancement": tumour.mean() - rim.mean(), "enhancement_p95": np.percentile(tumour, 95) - rim.mean()}
