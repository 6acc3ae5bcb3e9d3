"""Surface distance between two binary masks.

    hd95(prediction, ground_truth)                            # in pixels
    hd95(prediction, ground_truth, spacing=(5.0, 0.9, 0.9))   # in millimetres, if the voxel spacing is known
"""

import numpy as np
from scipy import ndimage


def hd95(prediction, ground_truth, spacing=(1.0, 1.0, 1.0)) -> float:
    """95th percentile symmetric Hausdorff distance of two volumes (Huttenlocher et al. 1993, the ranked form).

    Each surface voxel of one mask has a distance to the nearest surface voxel of the other mask. This gives two
    directed sets of distances. The result is the larger of their two 95th percentiles (linear interpolation), as in
    MONAI and in DeepMind's surface-distance. If both sets were pooled first, a large surface would hide the errors of
    a small one.

    The distance is 3-D. If a format has no voxel spacing (the TIFFs of kaggle_3m), a step between slices counts as one
    pixel. This understates the distance, because slices are several pixels apart there. The alternative, distances
    within each slice, is undefined for a slice where only one mask is present, which happens at both ends of nearly
    every tumour. The diagonal of the image for such a slice would turn an error of one slice into a failed case.

    Args:
      prediction, ground_truth: (slice, height, width) bool, NumPy or JAX.
      spacing: size of a voxel along each axis.

    Returns:
      The distance in units of `spacing`. NaN if both masks are empty (the caller excludes and counts such cases). The
      diagonal of the volume if one mask is empty: no attainable distance is larger (BraTS scores a missed tumour in the
      same way, with 373.13).

    Raises:
      ValueError: the shapes differ.
    """
    prediction, ground_truth = np.asarray(prediction, bool), np.asarray(ground_truth, bool)
    if prediction.shape != ground_truth.shape:
        raise ValueError(f"prediction has shape {prediction.shape}, ground truth has shape {ground_truth.shape}")
    if not prediction.any() and not ground_truth.any():
        return float("nan")
    if not prediction.any() or not ground_truth.any():
        return float(np.linalg.norm(np.multiply(ground_truth.shape, spacing)))
    box = ndimage.find_objects((prediction | ground_truth).astype(np.uint8))[0]
    first, second = surface(prediction[box]), surface(ground_truth[box])
    return max(_directed_95(first, second, spacing), _directed_95(second, first, spacing))


def surface(mask: np.ndarray) -> np.ndarray:
    """The voxels of a mask with a face neighbour outside the mask. Voxels beyond the array border count as outside.

    Args:
      mask: bool, any number of axes.

    Returns:
      bool, the same shape.
    """
    return mask & ~ndimage.binary_erosion(mask, ndimage.generate_binary_structure(mask.ndim, 1), border_value=0)


def _directed_95(source: np.ndarray, target: np.ndarray, spacing) -> float:
    distance = ndimage.distance_transform_edt(~target, sampling=spacing)
    return float(np.percentile(distance[source], 95))
