"""Clean-up of a predicted volume.

    mask = fill_holes(largest_component(probability >= 0.4, probability, volume.foreground(image)))
"""

from collections.abc import Callable

import numpy as np
from scipy import ndimage
from scipy.special import logit

# The 88 tumours drawn in kaggle_3m cover at most 0.18 of the head in their slices.
MAX_HEAD_SHARE = 1 / 3
# Chosen on the validation patients of five folds, where 0.05 to 0.5 all keep the same components.
MIN_SHARE_OF_LARGEST = 1 / 5
_WITHIN_SLICE = np.pad(ndimage.generate_binary_structure(2, 1)[None], [(1, 1), (0, 0), (0, 0)])  # side neighbours


def largest_component(mask: np.ndarray, probability: np.ndarray, head: np.ndarray) -> np.ndarray:
    """Keep one connected component: of the large ones, that in which the network is surest of tumour.

    Voxels that share a corner are connected (26 neighbours). Slices are thick and an outline moves between them, so
    that face neighbours alone (6) cut 21 of the 88 true masks of kaggle_3m apart; with 26, two have a second piece,
    of at most 5 % of their pixels.

    Large is what has at least MIN_SHARE_OF_LARGEST of the largest one's voxels, sure a high mean of log(p / (1 - p)),
    p clipped to 0.0001 to 0.9999: what else is bright in FLAIR is taken for tumour with less certainty, and now and
    then in more voxels.

    One that covers more than MAX_HEAD_SHARE of the head in its slices is passed over where there is another: slices
    near the crown are bright throughout in some scans and are taken for tumour as a whole, which may be more pixels
    than the tumour has.

    Args:
      mask: (slice, height, width) bool.
      probability: of tumour, the same shape, float32.
      head: the same shape, bool (`volume.foreground`).

    Returns:
      The same shape, bool; empty stays empty. Of components equal in certainty (to three decimals) the largest is
      kept, of these the first in array order.
    """
    area = head.sum(axis=(1, 2))

    def surest(part: np.ndarray, bounds: tuple[slice, ...]) -> np.ndarray:
        labels, _ = ndimage.label(part, ndimage.generate_binary_structure(3, 3))
        sizes = np.bincount(labels.ravel())[1:]
        around = [area[bounds[0]][where[0]].sum() for where in ndimage.find_objects(labels)]
        possible = sizes <= MAX_HEAD_SHARE * np.array(around)
        possible |= ~possible.any()
        large = np.flatnonzero(possible & (sizes >= MIN_SHARE_OF_LARGEST * sizes[possible].max()))
        log_odds = logit(np.clip(probability[bounds], 1e-4, 1 - 1e-4, dtype=np.float64))
        certainty = np.round(ndimage.mean(log_odds, labels, 1 + large), 3)
        return labels == 1 + large[np.lexsort((-sizes[large], -certainty))[0]]

    return _within_bounds(surest, mask)


def fill_holes(mask: np.ndarray) -> np.ndarray:
    """Fill what a slice's outline encloses: a cyst, whose fluid is dark in FLAIR, belongs to the tumour around it.

    So the masks of kaggle_3m are drawn: of the 70 that were looked at, none has more than 0.2 % of its pixels in
    holes.

    Args:
      mask: (slice, height, width) bool.

    Returns:
      The same shape, bool. A gap in the outline leaves a hole open where it is a pixel wide; a shared corner closes.
    """

    def filled(part: np.ndarray, _bounds: tuple[slice, ...]) -> np.ndarray:
        labels, count = ndimage.label(~part, _WITHIN_SLICE)
        outside = np.zeros(count + 1, bool)
        for edge in (labels[:, 0], labels[:, -1], labels[..., 0], labels[..., -1]):
            outside[edge] = True
        return part | ~outside[labels]

    return _within_bounds(filled, mask)


def _within_bounds(change: Callable[[np.ndarray, tuple[slice, ...]], np.ndarray], mask: np.ndarray) -> np.ndarray:
    """`change`(part, its bounds) where the mask is: a tumour fills a hundredth of a volume, and choosing tries many."""
    result = np.zeros_like(mask)
    for bounds in ndimage.find_objects(mask.astype(np.uint8)):
        result[bounds] = change(mask[bounds], bounds)
    return result
