"""Shape, place and intensity of a volume's tumour, as a radiologist would describe it: input of the grade.

    features = mask_features(scan, scan.mask)   # {"volume_share": 0.041, "enhancement": None, …}, or None: no tumour

The data has no pixel size and no slice distance, so every length is a share of the head. S is the side of the head's
square (`volume.find_geometry`), z an intensity in spreads above the median of the whole brain (`volume.normalise`), A
the tumour in its largest slice, the rim the brain within 0.05 S of the tumour in its slices (`volume.inside`).

    feature             unit    formula
    volume_share        1       tumour voxels / head voxels
    slice_share         1       slices with tumour / slices
    area_share          1       pixels of A / head pixels of the slice with most of them
    elongation          1       1 - minor / major axis of the ellipse with the second moments of A; 0: a circle
    solidity            1       pixels of A / pixels of its convex hull
    irregularity        1       perimeter² / (4π area) of A; 1: a circle, more: lobes, spikes or several parts
    lateral             1       |x| / S, x the centroid's distance from the square's middle; 0: on the midline
    side                -1, 1   sign of x; 1: in the right half of the image
    crossing            1       share of the tumour in the half where its centroid is not
    posterior           1       from the top (0: forehead) to the bottom of the square (1), of the centroid
    height              1       from the first (0) to the last slice (1), of the centroid
    flair_mean          z       mean FLAIR of the tumour
    flair_std           z       its standard deviation
    flair_p10           z       its 10th percentile: low where a core is cystic or suppressed
    flair_contrast      z       mean FLAIR of the tumour - mean FLAIR of the rim
    enhancement         z       mean post-contrast - pre-contrast of the tumour, above that of the rim
    enhancement_p95     z       its 95th percentile in the tumour, above the mean of the rim
    post_std            z       standard deviation of the tumour after contrast: heterogeneity
    post_low_share      1       share of the tumour over 1 z below the rim's mean after contrast: necrosis, oedema

After Mazurowski et al. 2017 (shape and place) and the VASARI terms (side, enhancement, necrosis, crossing the midline).
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

_RIM = 0.05  # of the side of the head's square
_LOW = 1.0


def mask_features(scan: Volume, mask: np.ndarray) -> dict[str, float | None] | None:
    """The features above of one patient.

    Args:
      scan: the volume; its own mask is not looked at.
      mask: (slice, height, width) bool on the scan's grid, true or predicted.

    Returns:
      {feature: value} for FEATURES, or None where the mask is empty. Features after contrast are None where that
      sequence is missing (FLAIR stands in its place), enhancement where either is, and all that compare with a rim
      where the tumour leaves none.
    """
    if not mask.any():
        return None
    head = foreground(scan.image)
    square = find_geometry(scan.image, size=1)
    values = {**_shape(mask, head), **_place(mask, square), **_intensity(scan.image, mask, head, square)}
    return {name: None if values[name] is None else float(values[name]) for name in FEATURES}


def _shape(mask: np.ndarray, head: np.ndarray) -> dict[str, float]:
    areas, head_areas = mask.sum(axis=(1, 2)), head.sum(axis=(1, 2))
    largest = np.pad(mask[areas.argmax()], 1).astype(np.uint8)  # all parts of the slice are one region
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
    tissue = brain | mask  # half of the time, as most of the image is air
    values, brain, tumour, rim = image[tissue], brain[tissue], mask[tissue], rim[tissue]
    pre, flair, post = (normalise(values[:, channel], brain) for channel in range(3))
    features = dict.fromkeys(INTENSITY) | _of_flair(flair[tumour], flair[rim])
    missing = missing_sequences(image[..., :3])  # none is of T2
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
