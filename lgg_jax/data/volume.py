"""A scan, its geometry and its intensity normalisation: the same functions for training and prediction.

    geometry = find_geometry(volume.image, size=128)
    inputs = network_images(volume.image, geometry)          # (slice, 128, 128, channel) float32
    ...
    probability = input_grid(network_probability, geometry)  # (slice, height, width) float32, on the grid of the scan
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from PIL import Image
from scipy import ndimage
from skimage import filters

CHANNELS = ("pre-contrast", "FLAIR", "post-contrast", "T2")  # T2 only if the data set has it
SEQUENCES = ("t1", "flair", "t1ce", "t2")  # the names of the same sequences in configs and in BraTS
FLAIR = 1
_RIM = 0.08  # thickness of scalp and skull as a share of the head's size
_LIMIT = 5.0  # normalised intensities are clipped to ±5
_MARGIN = 0.02  # margin around the head as a share of its longer side, so that no tumour at the rim is cut off


@dataclasses.dataclass(frozen=True)
class Volume:
    """A scan as it is stored on disk, with its slices in anatomical order.

    Attributes:
      patient: the identifier in splits.json and cases.csv.
      image: (slice, height, width, channel), uint8, int16 or float32. The channels are T1, FLAIR, post-contrast T1 and,
        if the data set has it, T2.
      mask: (slice, height, width) bool, the ground-truth mask of the tumour; None if there is none.
      slice_index: (slice,) int32, the number of each slice in its file name.
      clinical: {field: value} of `data.clinical.FIELDS`, None for a missing value.
    """

    patient: str
    image: np.ndarray
    mask: np.ndarray | None
    slice_index: np.ndarray
    clinical: dict

    def without_image(self) -> "Volume":
        """The scan with an empty image, to save memory."""
        # Not image[:0]: this view would keep the whole image in memory.
        return dataclasses.replace(self, image=np.empty((0, *self.image.shape[1:]), self.image.dtype))


@dataclasses.dataclass(frozen=True)
class Geometry:
    """The square of the input grid that the network sees. It may extend beyond the image.

    Attributes:
      top, left, side: the square in pixels of the input grid, the same for every slice of a volume.
      height, width: the size of the input grid in pixels.
      size: the side of the network grid in pixels.
    """

    top: int
    left: int
    side: int
    height: int
    width: int
    size: int


def foreground(image: np.ndarray) -> np.ndarray:
    """The mask of the head, where FLAIR is above the minimum cross-entropy threshold: (slice, height, width) bool.

    Only FLAIR is used: every patient has it, while the background of the other sequences is grey in some scans. The
    threshold (Li & Lee 1993) lies between the noise around the head and the darkest tissue.
    """
    flair = image[..., FLAIR]
    return flair > filters.threshold_li(flair[:, ::2, ::2])


def find_geometry(image: np.ndarray, size: int, crop: bool = True) -> Geometry:
    """The square around the head in all slices or, without `crop`, around the whole image.

    A row or column belongs to the head if the head is there, in some slice, at least a quarter as wide as at its widest
    place. Therefore neither noise nor the nose widens the square.

    Args:
      image: (slice, height, width, channel).
      size: the side of the network grid in pixels.
      crop: whether to crop to the head.
    """
    _, height, width, _ = image.shape
    top, left, bottom, right = 0, 0, height, width
    if crop:
        head = foreground(image)
        if head.any():
            top, bottom = _extent(head.sum(axis=2).max(axis=0))
            left, right = _extent(head.sum(axis=1).max(axis=0))
    side = max(bottom - top, right - left)
    side += 2 * round(_MARGIN * side) if crop else 0
    return Geometry((top + bottom - side) // 2, (left + right - side) // 2, side, height, width, size)


def _extent(widths: np.ndarray) -> tuple[int, int]:
    """The range (first, last + 1) of the places where `widths` is at least a quarter of its 95th percentile."""
    places = np.flatnonzero(widths >= 0.25 * np.percentile(widths, 95))
    return int(places[0]), int(places[-1]) + 1


def inside(head: np.ndarray) -> np.ndarray:
    """The head without its rim of scalp and skull, which is mostly brain: (slice, height, width) bool.

    This is the part that is deeper than 8 % of the head's size. If there is no such part, it is the whole head.

    Args:
      head: (slice, height, width) bool, as `foreground` returns it.
    """
    depth = _RIM * np.sqrt(head.sum(axis=(1, 2)).max())
    deep = np.zeros_like(head)
    for index in np.flatnonzero(head.any(axis=(1, 2))):
        filled = ndimage.binary_fill_holes(head[index])
        deep[index] = filled & (ndimage.distance_transform_edt(np.pad(filled, 1))[1:-1, 1:-1] > depth)
    deep &= head
    return deep if deep.any() else head


def missing_sequences(image: np.ndarray) -> tuple[str, ...]:
    """Names of the channels that equal FLAIR in every pixel: the data set replaces a missing sequence by FLAIR."""
    flair, names = image[..., FLAIR], CHANNELS[: image.shape[-1]]
    return tuple(name for c, name in enumerate(names) if c != FLAIR and np.array_equal(image[..., c], flair))


def lacks_t2(image: np.ndarray, names: Sequence[str]) -> bool:
    """Whether T2 is among `names` (of SEQUENCES) but the image has no T2 channel, so that FLAIR replaces it."""
    return SEQUENCES[-1] in names and image.shape[-1] < len(SEQUENCES)


def channel_indices(image: np.ndarray, names: Sequence[str]) -> list[int]:
    """The channel index of each of `names` (of SEQUENCES), in their order; that of FLAIR for a missing T2."""
    return [FLAIR if index >= image.shape[-1] else index for index in map(SEQUENCES.index, names)]


def centre_and_spread(sequence: np.ndarray, brain: np.ndarray) -> tuple[np.float32, np.float32]:
    """Median over the brain, and standard deviation of a normal distribution with the same quartiles; never 0."""
    values = sequence[brain] if brain.any() else sequence.ravel()
    low, middle, high = np.percentile(values, [25, 50, 75])
    return np.float32(middle), np.float32(max((high - low) / 1.349, 1e-3 * max(abs(middle), 1e-3)))


def normalise(sequence: np.ndarray, brain: np.ndarray) -> np.ndarray:
    """Normalises one channel of a whole volume to median 0 and unit spread over the brain, clipped to ±5.

    MRI intensities have no unit. The spread is the standard deviation of a normal distribution with the same quartiles.
    Median and quartiles are used instead of mean and standard deviation, and the brain instead of the head. Otherwise a
    bright scalp, contrast agent in the vessels or the tumour itself would determine the contrast that remains within
    the brain. A slice is never normalised alone: the brightness of a tumour is relative to the whole brain, and the
    noise of empty slices at the top would be amplified.

    Args:
      sequence: (slice, height, width) of any number type.
      brain: (slice, height, width) bool, as `inside` returns it.

    Returns:
      (slice, height, width) float32.
    """
    middle, spread = centre_and_spread(sequence, brain)
    return np.clip((sequence - middle) / spread, -_LIMIT, _LIMIT)


def network_images(image: np.ndarray, geometry: Geometry, names: Sequence[str] = SEQUENCES[:3]) -> np.ndarray:
    """Normalised slices of the sequences `names` on the network grid: (slice, size, size, channel) float32."""
    brain = inside(foreground(image))
    channels = (image[..., index] for index in channel_indices(image, names))
    return np.stack([_to_square(normalise(channel, brain), geometry) for channel in channels], axis=-1)


def with_neighbours(images: np.ndarray, context: int) -> np.ndarray:
    """Every slice with its `context` neighbours on both sides; at the ends of the volume the last slice is repeated.

    Args:
      images: (slice, height, width, channel).
      context: number of neighbours on each side.

    Returns:
      (slice, height, width, (2·context + 1)·channel), with the slices in order.
    """
    slices = len(images)
    index = np.clip(np.arange(slices)[:, None] + np.arange(-context, context + 1), 0, slices - 1)
    return np.moveaxis(images[index], 1, -2).reshape(*images.shape[:-1], -1)


def network_masks(mask: np.ndarray, geometry: Geometry) -> np.ndarray:
    """The share of each pixel of the network grid that the mask covers: (slice, size, size) float32 in [0, 1]."""
    return _to_square(mask.astype(np.float32), geometry)


def input_grid(values: np.ndarray, geometry: Geometry) -> np.ndarray:
    """Resamples values (slice, size, size) to the input grid: (slice, height, width) float32; 0 outside the square."""
    g = geometry
    output = np.zeros((len(values), g.height, g.width), np.float32)
    rows = slice(max(g.top, 0), min(g.top + g.side, g.height))
    columns = slice(max(g.left, 0), min(g.left + g.side, g.width))
    for plane, result in zip(values, output, strict=True):
        square = _resize(plane, g.side)
        result[rows, columns] = square[
            rows.start - g.top : rows.stop - g.top, columns.start - g.left : columns.stop - g.left
        ]
    return output


def _to_square(planes: np.ndarray, geometry: Geometry) -> np.ndarray:
    """Crops planes (slice, height, width) float32 to the square and resizes them; edge values beyond the image."""
    g = geometry
    rows = np.clip(np.arange(g.top, g.top + g.side), 0, g.height - 1)
    columns = np.clip(np.arange(g.left, g.left + g.side), 0, g.width - 1)
    square = planes.take(rows, axis=1).take(columns, axis=2)
    return np.stack([_resize(plane, g.size) for plane in square])


def _resize(plane: np.ndarray, size: int) -> np.ndarray:
    """Resizes a plane with Pillow's triangle filter: aligned corners, and no aliasing in a smaller image."""
    return np.asarray(Image.fromarray(plane).resize((size, size), Image.Resampling.BILINEAR))
