"""Scans in the kaggle_3m layout: a folder a patient, in it a TIFF a slice.

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
from lgg_jax.scans.scan import Scan, output_path, warn_of_missing


@dataclasses.dataclass(frozen=True)
class TiffScan(Scan):
    """Attributes: `files`, the images in the order of slices."""

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
    """Whether the folder holds slices; masks alone are none."""
    return any(not path.name.endswith("_mask.tif") for path in folder.glob("*.tif"))


def read(patient: str, folder: Path, max_bytes: float) -> TiffScan:
    """Slices are uint8 of shape (height, width, 3); masks beside them are not read.

    Clinical values come from a data.csv next to the folder. A channel that equals FLAIR counts as missing: the data set
    fills gaps so.
    """
    images, _ = kaggle.slice_files(folder)
    index = sorted(images)
    files = tuple(images[number] for number in index)
    planes = []
    for path in files:
        planes.append(_read_slice(path, planes[0].shape if planes else None))
        if planes[0].nbytes * len(files) > max_bytes:
            raise UserError(f"{folder} is larger than {max_bytes / 1e9:g} GB", "raise the limit if that is meant")
    image = np.stack(planes)
    filled = missing_sequences(image)
    warn_of_missing(filled, folder)
    sources = {name: f"channel {channel}" for channel, name in enumerate(CHANNELS[:3]) if name not in filled}
    clinical = read_clinical(folder.parent).get(kaggle.patient_id(folder.name), {})
    return TiffScan(Volume(patient, image, None, np.array(index, np.int32), clinical), None, sources, files)


def _read_slice(path: Path, shape: tuple[int, ...] | None) -> np.ndarray:
    image = kaggle.read_tiff(path)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        found = f"{image.dtype} of shape {image.shape}"
        raise UserError(f"{path} holds {found}", "expected uint8 of shape (height, width, 3)")
    if shape is not None and image.shape != shape:
        raise UserError(f"{path} is {image.shape}, slices before it {shape}", "make them one size")
    return image
