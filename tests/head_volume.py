"""A volume whose measurements can be calculated by hand."""

import numpy as np

from lgg_jax.data.volume import Volume


def head_volume(patient: str, left: int, rest: float = 50.0) -> Volume:
    """Four slices of 60 × 60 pixels with a head of 40 × 20 pixels.

    The last two slices have a tumour of 4 × 5 pixels that begins at column `left`.
    """
    image, mask = np.zeros((4, 60, 60, 3), np.float32), np.zeros((4, 60, 60), bool)
    image[:, 10:50, 20:40] = [rest, 100.0, 50.0]
    image[:, 10:30, 20:40, 1] = 140.0
    mask[2:, 12:16, left:left + 5] = True
    return Volume(patient, image, mask, np.arange(1, 5, dtype=np.int32), {"grade": 2.0})
