"""Distance between the surfaces of two masks.

    hd95(prediction, truth)                            # in pixels
    hd95(prediction, truth, spacing=(5.0, 0.9, 0.9))   # in millimetres, where the spacing is known
"""

import numpy as np
from scipy import ndimage


def hd95(prediction, truth, spacing=(1.0, 1.0, 1.0)) -> float:
    """95th percentile symmetric Hausdorff distance of two volumes (Huttenlocher et al. 1993, the ranked form).

    Each surface voxel of one mask has a distance to the nearest surface voxel of the other: two directed sets. The
    result is the larger of their two 95th percentiles (linear interpolation), as MONAI and DeepMind's surface-distance
    take it; pooling both sets first would let a large surface hide the errors of a small one.

    The distance is 3-D. Where a format carries no spacing (the TIFFs of kaggle_3m), a step between slices counts as
    one pixel. That understates it (slices there are several pixels apart), but the alternative, distances within each
    slice, has no answer for a slice where only one mask is present, which happens at the two ends of nearly every
    tumour: a whole image diagonal there would turn an error of one slice into a failure of the case.

    Args:
      prediction, truth: (slice, height, width) bool, numpy or jax.
      spacing: size of a voxel along each axis.

    Returns:
      In units of `spacing`. NaN when both are empty (excluded, and counted by the caller); when one is empty, the
      diagonal of the volume: no attainable distance is larger (BraTS scores a missed tumour so, 373.13 there).
    """
    prediction, truth = np.asarray(prediction, bool), np.asarray(truth, bool)
    if prediction.shape != truth.shape:
        raise ValueError(f"prediction has shape {prediction.shape}, truth {truth.shape}")
    if not prediction.any() and not truth.any():
        return float("nan")
    if not prediction.any() or not truth.any():
        return float(np.linalg.norm(np.multiply(truth.shape, spacing)))
    box = ndimage.find_objects((prediction | truth).astype(np.uint8))[0]
    first, second = surface(prediction[box]), surface(truth[box])
    return max(_directed_95(first, second, spacing), _directed_95(second, first, spacing))


def surface(mask: np.ndarray) -> np.ndarray:
    """The voxels of a mask that have a face neighbour outside it; beyond the border of the array is outside."""
    return mask & ~ndimage.binary_erosion(mask, ndimage.generate_binary_structure(mask.ndim, 1), border_value=0)


def _directed_95(source: np.ndarray, target: np.ndarray, spacing) -> float:
    distance = ndimage.distance_transform_edt(~target, sampling=spacing)
    return float(np.percentile(distance[source], 95))
