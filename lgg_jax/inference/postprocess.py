"""Post-processing of a predicted volume.

    mask = fill_holes(largest_component(probability >= 0.4, probability, volume.foreground(image)))
"""

import numpy as np
from scipy import ndimage
from scipy.special import logit

# The 88 ground-truth masks of kaggle_3m cover at most 0.18 of the head in their slices.
MAX_HEAD_SHARE = 1 / 3
# Chosen on the validation patients of five folds, where every value from 0.05 to 0.5 keeps the same components.
MIN_SHARE_OF_LARGEST = 1 / 5
_FACES_WITHIN_SLICE = ndimage.generate_binary_structure(2, 1)[None]
_FACES_EDGES_CORNERS = ndimage.generate_binary_structure(3, 3)


def largest_component(mask: np.ndarray, probability: np.ndarray, head: np.ndarray) -> np.ndarray:
    """Keep one connected component: among the large ones, the one with the highest mean log-odds of tumour.

    Connectivity: voxels that share a face, an edge or a corner are connected (26 neighbours). Slices are thick and the
    boundary of a tumour moves between them: face neighbours alone (6) split 21 of the 88 ground-truth masks of
    kaggle_3m. With 26 neighbours, two of them have a second component, of at most 5 % of their pixels.

    Size: a component is large if it has at least MIN_SHARE_OF_LARGEST of the voxels of the largest one. The log-odds
    are log(p / (1 - p)), with p clipped to 0.0001 to 0.9999. Other bright structures in FLAIR get lower probabilities
    than tumour, but sometimes more voxels.

    Share of the head: a component that covers more than MAX_HEAD_SHARE of the head in its slices is excluded, unless
    this excludes all components. In some scans the slices near the crown are bright throughout and are segmented as a
    whole, which may be more pixels than the tumour has.

    Args:
      mask: (slice, height, width) bool.
      probability: (slice, height, width) float32, probability of tumour.
      head: (slice, height, width) bool, `volume.foreground` of the scan.

    Returns:
      (slice, height, width) bool. An empty mask stays empty. If components have equal mean log-odds (to three
      decimals), the largest is kept; if they also have equal size, the first in array order.
    """
    kept = np.zeros_like(mask)
    if mask.any():
        box = _bounding_box(mask)
        head_area = head.sum(axis=(1, 2))  # of whole slices: the box may cut the head
        kept[box] = _surest_component(mask[box], probability[box], head_area[box[0]])
    return kept


def _surest_component(mask: np.ndarray, probability: np.ndarray, head_area: np.ndarray) -> np.ndarray:
    """The component that `largest_component` keeps.

    Args:
      mask: (slice, height, width) bool, not empty.
      probability: (slice, height, width) float32.
      head_area: (slice,) int, pixels of the head in each slice.

    Returns:
      (slice, height, width) bool.
    """
    labels, _ = ndimage.label(mask, _FACES_EDGES_CORNERS)
    sizes = np.bincount(labels.ravel())[1:]
    head_areas = np.array([head_area[slices].sum() for slices, *_ in ndimage.find_objects(labels)])
    allowed = sizes <= MAX_HEAD_SHARE * head_areas
    if not allowed.any():
        allowed[:] = True
    large = np.flatnonzero(allowed & (sizes >= MIN_SHARE_OF_LARGEST * sizes[allowed].max()))
    log_odds = logit(np.clip(probability, 1e-4, 1 - 1e-4, dtype=np.float64))
    mean_log_odds = np.round(ndimage.mean(log_odds, labels, 1 + large), 3)
    best = large[np.lexsort((-sizes[large], -mean_log_odds))[0]]
    return labels == 1 + best


def fill_holes(mask: np.ndarray) -> np.ndarray:
    """Fill the holes of each slice: a cyst is dark in FLAIR, but belongs to the tumour that encloses it.

    The ground-truth masks of kaggle_3m follow this rule: of the 70 that were inspected, none has more than 0.2 % of
    its pixels in holes.

    Args:
      mask: (slice, height, width) bool.

    Returns:
      (slice, height, width) bool. A gap of one pixel leaves a hole open; pixels that share a corner close it.
    """
    filled = np.zeros_like(mask)
    if mask.any():
        box = _bounding_box(mask)
        filled[box] = ndimage.binary_fill_holes(mask[box], _FACES_WITHIN_SLICE)
    return filled


def _bounding_box(mask: np.ndarray) -> tuple[slice, ...]:
    """The smallest box around a mask that is not empty.

    Post-processing is restricted to this box because a tumour fills about a hundredth of a volume, and the choice of
    threshold on the validation set post-processes each volume many times.
    """
    return ndimage.find_objects(mask.astype(np.uint8))[0]
