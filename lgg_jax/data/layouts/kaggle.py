"""kaggle_3m layout of the LGG MRI segmentation data, and its TFDS builder.

    list_patients("kaggle_3m")              # DataFrame: patient, folder, institution, grade
    for volume in load_volumes("kaggle_3m"):
        print(volume.patient, volume.image.shape)

Each patient has a folder (`TCGA_CS_4941_19960909/`) with slices `…_1.tif` (channels T1, FLAIR, T1 with contrast) and
masks `…_1_mask.tif`.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np
import pandas as pd
import tensorflow_datasets as tfds

from lgg_jax.data.clinical import read_clinical
from lgg_jax.data.files import read_image
from lgg_jax.data.layouts import cache
from lgg_jax.data.volume import Volume
from lgg_jax.errors import UserError

FILE_NAME = re.compile(r"_(\d+)(_mask)?\.tif$")
EXPECTED_FILES = "patient folders with *_1.tif and *_1_mask.tif (kaggle_3m)"
MAX_SLICE = 9999  # a larger number in a file name is not a slice number
_ROOTS = (".", "kaggle_3m", "lgg-mri-segmentation/kaggle_3m")

CITATION = """\
@article{buda2019association,
  title = {Association of genomic subtypes of lower-grade gliomas with shape features automatically extracted by a deep
           learning algorithm},
  author = {Buda, Mateusz and Saha, Ashirbani and Mazurowski, Maciej A.},
  journal = {Computers in Biology and Medicine}, volume = {109}, pages = {218--225}, year = {2019},
  doi = {10.1016/j.compbiomed.2019.05.002}
}
@article{mazurowski2017radiogenomics,
  title = {Radiogenomics of lower-grade glioma: algorithmically-assessed tumor shape is associated with tumor genomic
           subtypes and patient outcomes in a multi-institutional study with The Cancer Genome Atlas data},
  author = {Mazurowski, Maciej A. and Clark, Kal and Czarnek, Nicholas M. and Shamsesfandabadi, Parisa and
            Peters, Katherine B. and Saha, Ashirbani},
  journal = {Journal of Neuro-Oncology}, volume = {133}, pages = {27--35}, year = {2017},
  doi = {10.1007/s11060-017-2420-1}
}
@misc{pedano2016tcgalgg,
  title = {The Cancer Genome Atlas Low Grade Glioma Collection (TCGA-LGG)},
  author = {Pedano, Nancy and Flanders, Adam E. and Scarpace, Lisa and others},
  publisher = {The Cancer Imaging Archive}, year = {2016}, doi = {10.7937/K9/TCIA.2016.L4LTD3TK}
}
"""


class Pair(NamedTuple):
    """The files of one slice: image and mask."""

    index: int
    image: Path
    mask: Path


def find_root(data_dir) -> Path:
    """The folder of the patient folders. A second copy, as in the Kaggle zip file, is ignored with a warning."""
    roots = find_roots(data_dir)
    for other in roots[1:]:
        cache.warn_once(f"two copies of the data: {roots[0]} is used, {other} is ignored")
    return roots[0]


def find_roots(data_dir) -> list[Path]:
    """Folders with patient folders: data_dir itself, and the two places in the Kaggle zip file. The first one is used.

    Raises:
      UserError: data_dir does not exist, or there are no patient folders.
    """
    data_dir = Path(data_dir)
    if not data_dir.is_dir():
        raise UserError(f"no such folder: {data_dir}", "pass the folder that holds the patient folders")
    roots = [data_dir / root for root in _ROOTS if patient_folders(data_dir / root)]
    if not roots:
        remedy = "pass the folder that holds TCGA_CS_4941_19960909/ … with *_mask.tif files"
        raise UserError(f"no patient folders in {data_dir}", remedy)
    return roots


def matches(data_dir) -> bool:
    """Whether data_dir has this layout."""
    return any(patient_folders(Path(data_dir) / root) for root in _ROOTS)


def patient_folders(root: Path) -> list[Path]:
    """Folders with masks directly in `root`, sorted by name; empty if `root` does not exist."""
    folders = sorted(path for path in root.iterdir() if path.is_dir()) if root.is_dir() else []
    return [folder for folder in folders if next(folder.glob("*_mask.tif"), None)]


def patient_id(folder_name: str) -> str:
    """The folder name without the date: TCGA_CS_4941_19960909 → TCGA_CS_4941. Other names do not change."""
    return re.sub(r"_\d{8}$", "", folder_name)


def slice_files(folder: Path) -> tuple[dict[int, Path], dict[int, Path]]:
    """Images and masks of a patient folder by slice number.

    Raises:
      UserError: a file name has no slice number or one above MAX_SLICE, or two files have the same number.
    """
    images, masks = {}, {}
    for path in sorted(folder.glob("*.tif")):
        match = FILE_NAME.search(path.name)
        if not match:
            raise UserError(f"{path} has no slice number in its name", "rename it to …_<number>.tif or move it away")
        files, index = masks if match[2] else images, int(match[1])
        if index > MAX_SLICE:  # for example, a date
            wrong = f"{path} has slice number {index} in its name, but the limit is {MAX_SLICE}"
            raise UserError(wrong, "rename it to …_<number>.tif")
        if index in files:
            raise UserError(f"{path} has the same slice number as {files[index].name}", "keep one of the two")
        files[index] = path
    return images, masks


def slice_pairs(folder: Path) -> list[Pair]:
    """Slices of a patient folder in numeric order, 2 before 10; UserError if an image has no mask or the reverse."""
    images, masks = slice_files(folder)
    for error in cache.unpaired(images, masks):
        raise error
    return [Pair(index, images[index], masks[index]) for index in sorted(images)]


def read_tiff(path: Path) -> np.ndarray:
    """Read a TIFF file of at most 4096×4096 pixels; UserError if it is truncated, unreadable or larger."""
    return np.asarray(read_image(path, ["TIFF"]))


def read_slice(pair: Pair) -> tuple[np.ndarray, np.ndarray]:
    """Read image (height, width, 3) uint8 and mask (height, width) uint8. In the mask, values above 0 are tumour.

    Raises:
      UserError: a file is unreadable, or has another dtype or shape.
    """
    image, mask = read_tiff(pair.image), read_tiff(pair.mask)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        wrong = f"{pair.image} has dtype {image.dtype} and shape {image.shape}"
        raise UserError(wrong, "save it as uint8 of shape (height, width, 3)")
    if mask.shape != image.shape[:2] or mask.dtype not in (np.uint8, bool):
        wrong = f"{pair.mask} has dtype {mask.dtype} and shape {mask.shape}"
        raise UserError(wrong, f"save it as uint8 of shape {image.shape[:2]}, the size of its image")
    return image, mask.astype(np.uint8)


def list_patients(data_dir) -> pd.DataFrame:
    """One row per patient, sorted: patient, folder, institution, grade (2, 3 or missing). No pixel is read."""
    root = find_root(data_dir)
    clinical = read_clinical(root)
    folders = patient_folders(root)
    patients = [patient_id(folder.name) for folder in folders]
    grades = [clinical.get(patient, {}).get("grade") for patient in patients]
    return cache.patient_table(data_dir, patients, folders, grades)


class LggMri(cache.SliceBuilder):
    """TFDS builder of LGG MRI segmentation (Buda et al. 2019): one example per slice, slices of a patient in order."""

    name = "lgg_mri"
    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar = {"1.0.0": "First version."}
    MANUAL_DOWNLOAD_INSTRUCTIONS = """
    1. Sign in at https://www.kaggle.com/datasets/mateuszbuda/lgg-mri-segmentation and download the archive.
    2. Unzip it into the manual folder. It must then contain kaggle_3m/TCGA_CS_4941_19960909/.
    The archive holds a second copy under lgg-mri-segmentation/, which is not needed.
    """
    IMAGE_DTYPE = np.uint8
    ABOUT: ClassVar = {
        "description": (
            "Brain MRI of patients with lower-grade glioma (TCGA-LGG, The Cancer Imaging Archive) with masks of "
            "the FLAIR abnormality. Use follows the TCIA data usage policy: "
            "https://www.cancerimagingarchive.net/data-usage-policies-and-restrictions/"
        ),
        "homepage": "https://www.kaggle.com/datasets/mateuszbuda/lgg-mri-segmentation",
        "citation": CITATION,
    }

    @staticmethod
    def source_files(data_dir) -> list[Path]:
        """The files that a prepared copy depends on: the tables in the root, and the TIFF files of all patients."""
        root = find_root(data_dir)
        return [*root.glob("*.csv"), *(path for folder in patient_folders(root) for path in folder.glob("*.tif"))]

    @staticmethod
    def read_volumes(data_dir) -> Iterator[Volume]:
        """Read every patient's volume from the source files."""
        clinical = read_clinical(find_root(data_dir))
        for row in list_patients(data_dir).itertuples():
            yield read_volume(Path(row.folder), clinical.get(row.patient, {}))


def read_volume(folder: Path, clinical: dict) -> Volume:
    """Read a patient folder as a Volume: image (slice, height, width, 3) uint8, mask (slice, height, width) bool."""
    pairs = slice_pairs(folder)
    images, masks = zip(*map(read_slice, pairs), strict=True)
    for pair, image in zip(pairs, images, strict=True):
        if image.shape != images[0].shape:
            wrong = f"{pair.image} has shape {image.shape}, the slices before it {images[0].shape}"
            raise UserError(wrong, "make all slices of a patient the same size")
    index = np.array([pair.index for pair in pairs], np.int32)
    return Volume(patient_id(folder.name), np.stack(images), np.stack(masks) > 0, index, clinical)


BUILDER = LggMri


def load_volumes(data_dir, cache_dir="", patients=None) -> Iterator[Volume]:
    """Volumes of a kaggle_3m folder: all, or those of `patients`. The cache is prepared on first use."""
    return cache.load_volumes(LggMri, data_dir, cache_dir, patients)
