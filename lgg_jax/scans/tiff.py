"""TIFF scans in the kaggle_3m layout: one folder per patient, one TIFF file per slice.

    scan = read("TCGA_CS_4941", Path("kaggle_3m/TCGA_CS_4941_19960909"), max_bytes=4e9)
    scan.write_mask(mask, "out")         # out/TCGA_CS_4941_19960909_1_mask.tif …, 0 and 255 as in the data set
"""

import dataclasses
from pathlib import Path

import numpy as np
from PIL import Image

from lgg_jax.data.clinical import read_clinical
from lgg_jax.data.layouts import kaggle
from lgg_jax.data.volume import CHANNELS, Volume, missing_sequences
from lgg_jax.errors import UserError
from lgg_jax.scans.scan import Scan, output_path, over_limit, warn_of_missing


@dataclasses.dataclass(frozen=True)
class TiffScan(Scan):
    """Scan that writes one TIFF file per slice.

    Attributes:
      files: image files in slice order.
    """

    files: tuple[Path, ...]

    def write_mask(self, mask: np.ndarray, folder) -> Path:
        return self._write(mask.astype(np.uint8) * 255, folder, "mask")

    def write_probability(self, probability: np.ndarray, folder) -> Path:
        return self._write(probability.astype(np.float32), folder, "probability")

    def _write(self, planes: np.ndarray, folder, what: str) -> Path:
        for path, plane in zip(self.files, planes, strict=True):
            Image.fromarray(plane).save(output_path(folder, f"{path.stem}_{what}.tif"))
        return Path(folder)


def is_patient(folder: Path) -> bool:
    """Whether the folder contains image slices. A folder with masks only does not count."""
    return any(not path.name.endswith("_mask.tif") for path in folder.glob("*.tif"))


def read(patient: str, folder: Path, max_bytes: float) -> TiffScan:
    """Read a patient's slices. Masks in the folder are not read.

    Clinical values are read from data.csv next to the folder. A channel that equals FLAIR counts as missing, because
    the data set replaces missing sequences by FLAIR.

    Args:
      patient: identifier for outputs.
      folder: folder of the slices, uint8 images of shape (height, width, 3).
      max_bytes: largest size of all slices together, uncompressed.

    Raises:
      UserError: a slice is unreadable, has another size or type, or has no number, or the scan exceeds `max_bytes`.
    """
    images, _ = kaggle.slice_files(folder)
    index = sorted(images)
    files = tuple(images[number] for number in index)
    planes = []
    for path in files:
        planes.append(_read_slice(path, planes[0].shape if planes else None))
        if planes[0].nbytes * len(files) > max_bytes:
            raise over_limit(folder, max_bytes)
    image = np.stack(planes)
    filled = missing_sequences(image)
    warn_of_missing(filled, folder)
    sources = {name: f"channel {channel}" for channel, name in enumerate(CHANNELS[:3]) if name not in filled}
    clinical = read_clinical(folder.parent).get(kaggle.patient_id(folder.name), {})
    return TiffScan(Volume(patient, image, None, np.array(index, np.int32), clinical), None, sources, files)


def _read_slice(path: Path, shape: tuple[int, ...] | None) -> np.ndarray:
    """(height, width, 3) uint8; `shape` is that of the slices before it, None for the first."""
    image = kaggle.read_tiff(path)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        found = f"{image.dtype} of shape {image.shape}"
        raise UserError(f"slice is {found} ({path})", "it must be uint8 of shape (height, width, 3)")
    if shape is not None and image.shape != shape:
        raise UserError(f"slice has shape {image.shape}, the slices before it {shape} ({path})",
                        "make all slices the same size")  # fmt: skip
    return image
