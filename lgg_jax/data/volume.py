"""One patient's scan, and the geometry and intensities that training and prediction share.

    geometry = find_geometry(volume.image, size=128)
    inputs = network_images(volume.image, geometry)          # (slice, 128, 128, channel) float32
    ...
    probability = input_grid(network_probability, geometry)  # (slice, height, width) float32, on the scan's own grid
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from PIL import Image
from scipy import ndimage
from skimage import filters

CHANNELS = ("pre-contrast", "FLAIR", "post-contrast", "T2")  # T2 where the data set has it
SEQUENCES = ("t1", "flair", "t1ce", "t2")  # the same, as configs and BraTS call them
FLAIR = 1
_RIM = 0.08  # of the head's size: scalp and skull
_LIMIT = 5.0
_MARGIN = 0.02  # of the head's longer side, kept around it so that a tumour at the rim is never cut


@dataclasses.dataclass(frozen=True)
class Volume:
    """A scan as it is stored on disk, slices in anatomical order.

    Attributes:
      patient: identifier, the same in splits.json and cases.csv.
      image: (slice, height, width, channel), uint8, int16 or float32; channels are T1, FLAIR, T1 with contrast
        and, where the data set has it, T2.
      mask: (slice, height, width) bool, tumour; None where nobody has drawn one.
      slice_index: (slice,) int32, the number each slice has in its file name.
      clinical: values of `data.clinical.FIELDS`, None where missing.
    """

    patient: str
    image: np.ndarray
    mask: np.ndarray | None
    slice_index: np.ndarray
    clinical: dict

    def without_image(self) -> "Volume":
        """The same with an empty image, where only the rest is needed."""
        # Not image[:0], which is a view and keeps all of it.
        return dataclasses.replace(self, image=np.empty((0, *self.image.shape[1:]), self.image.dtype))


@dataclasses.dataclass(frozen=True)
class Geometry:
    """The square of the input grid that the network sees, in pixels; it may reach over the image's edge.

    Attributes:
      top, left, side: the square, the same for every slice of a volume.
      height, width: the input grid.
      size: pixels of the network's grid along each side.
    """

    top: int
    left: int
    side: int
    height: int
    width: int
    size: int


def foreground(image: np.ndarray) -> np.ndarray:
    """(slice, height, width) bool: the head, where FLAIR is above the threshold of minimum cross entropy.

    FLAIR alone: it is there for every patient, while the background of the other sequences is grey in some. The
    threshold (Li & Lee 1993) lies between the noise around the head and the darkest tissue.
    """
    flair = image[..., FLAIR]
    return flair > filters.threshold_li(flair[:, ::2, ::2])


def find_geometry(image: np.ndarray, size: int, crop: bool = True) -> Geometry:
    """The square around the head in all slices (or, without `crop`, around the whole image).

    A row or column counts where in some slice the head is at least a quarter as wide there as at its widest: noise
    does not widen the square, and neither does the nose.
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
    """First and last + 1 of the places where `widths` reaches a quarter of its 95th percentile."""
    places = np.flatnonzero(widths >= 0.25 * np.percentile(widths, 95))
    return int(places[0]), int(places[-1]) + 1


def inside(head: np.ndarray) -> np.ndarray:
    """(slice, height, width) bool: the head without its rim of scalp and skull, so mostly brain.

    What is deeper than 8 % of the head's size; the whole head where nothing is.
    """
    depth = _RIM * np.sqrt(head.sum(axis=(1, 2)).max())
    deep = np.zeros_like(head)
    for index in np.flatnonzero(head.any(axis=(1, 2))):
        filled = ndimage.binary_fill_holes(head[index])
        deep[index] = filled & (ndimage.distance_transform_edt(np.pad(filled, 1))[1:-1, 1:-1] > depth)
    deep &= head
    return deep if deep.any() else head


def missing_sequences(image: np.ndarray) -> tuple[str, ...]:
    """Names of the channels that hold FLAIR's pixels throughout: that is how the data set fills what it lacks."""
    flair, names = image[..., FLAIR], CHANNELS[: image.shape[-1]]
    return tuple(name for c, name in enumerate(names) if c != FLAIR and np.array_equal(image[..., c], flair))


def lacks_t2(image: np.ndarray, names: Sequence[str]) -> bool:
    """Whether `names`, of SEQUENCES, ask for T2 and the image has no such channel: FLAIR stands in for it."""
    return SEQUENCES[-1] in names and image.shape[-1] < len(SEQUENCES)


def channel_indices(image: np.ndarray, names: Sequence[str]) -> list[int]:
    """The channel of each of `names`, of SEQUENCES, in their order; FLAIR's for a T2 that is not there."""
    return [FLAIR if index >= image.shape[-1] else index for index in map(SEQUENCES.index, names)]


def centre_and_spread(sequence: np.ndarray, brain: np.ndarray) -> tuple[np.float32, np.float32]:
    """Median over the brain, and the deviation of the normal distribution that has its quartiles; never 0."""
    values = sequence[brain] if brain.any() else sequence.ravel()
    low, middle, high = np.percentile(values, [25, 50, 75])
    return np.float32(middle), np.float32(max((high - low) / 1.349, 1e-3 * max(abs(middle), 1e-3)))


def normalise(sequence: np.ndarray, brain: np.ndarray) -> np.ndarray:
    """One channel of a whole volume, float32: median 0 and unit spread over the brain, within ±5.

    Args:
      sequence: (slice, height, width) of any number type.
      brain: (slice, height, width) bool, as `inside` gives it.

    MRI has no unit. Median and quartiles (the spread is that of a normal distribution with the same quartiles) and
    not mean and deviation, and the brain and not the head: a bright scalp, contrast in the vessels or the tumour
    itself would otherwise decide how much contrast the brain is left with. A slice is never normalised alone (the
    brightness of a tumour is relative to the whole brain, and empty slices at the top would be blown up).
    """
    middle, spread = centre_and_spread(sequence, brain)
    return np.clip((sequence - middle) / spread, -_LIMIT, _LIMIT)


def network_images(image: np.ndarray, geometry: Geometry, names: Sequence[str] = SEQUENCES[:3]) -> np.ndarray:
    """Normalised slices of the sequences `names` on the network's grid: (slice, size, size, channel) float32."""
    brain = inside(foreground(image))
    channels = (image[..., index] for index in channel_indices(image, names))
    return np.stack([_to_square(normalise(channel, brain), geometry) for channel in channels], axis=-1)


def with_neighbours(images: np.ndarray, context: int) -> np.ndarray:
    """Every slice between the `context` slices before and after it; at the ends of the volume the last one repeats.

    (slice, height, width, channel) → (slice, height, width, (2·context + 1)·channel), the slices in order.
    """
    slices = len(images)
    index = np.clip(np.arange(slices)[:, None] + np.arange(-context, context + 1), 0, slices - 1)
    return np.moveaxis(images[index], 1, -2).reshape(*images.shape[:-1], -1)


def network_masks(mask: np.ndarray, geometry: Geometry) -> np.ndarray:
    """The share of each network pixel that the mask covers: (slice, size, size) float32 in [0, 1]."""
    return _to_square(mask.astype(np.float32), geometry)


def input_grid(values: np.ndarray, geometry: Geometry) -> np.ndarray:
    """Network-grid values (slice, size, size) back on the input grid (slice, height, width); 0 outside the square."""
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
    """(slice, height, width) float32 cut to the square (edge values beyond the image) and resized."""
    g = geometry
    rows = np.clip(np.arange(g.top, g.top + g.side), 0, g.height - 1)
    columns = np.clip(np.arange(g.left, g.left + g.side), 0, g.width - 1)
    square = planes.take(rows, axis=1).take(columns, axis=2)
    return np.stack([_resize(plane, g.size) for plane in square])


def _resize(plane: np.ndarray, size: int) -> np.ndarray:
    """Triangle filter, widened when shrinking (no aliasing): Pillow does both, and keeps corners aligned."""
    return np.asarray(Image.fromarray(plane).resize((size, size), Image.Resampling.BILINEAR))
