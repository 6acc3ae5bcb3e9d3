"""BraTS layout of glioma scans (2017–2020, and the file names of 2023), and its TFDS builder.

    list_patients("MICCAI_BraTS2020_TrainingData")              # DataFrame: patient, folder, institution, grade
    for volume in load_volumes("MICCAI_BraTS2020_TrainingData"):
        print(volume.patient, volume.image.shape)               # (155, 240, 240, 4): T1, FLAIR, T1 with contrast, T2

Each patient has a folder with `<id>_flair.nii.gz`, `_t1`, `_t1ce`, `_t2` and `_seg`. If no patient has a T2, the
volumes have three channels. The mask is the whole tumour: all labels above 0. Slices have the orientation of kaggle_3m,
so a model trained on one data set can be applied to the other.

BraTS has two classes: high grade (HGG) becomes grade 4, low grade (LGG) becomes grade 2. A grade III glioma, which
kaggle_3m labels as 3, can be in either class. Some patients are TCGA-LGG patients that are also in kaggle_3m
(`tcga_ids`). Exclude them from an external validation.
"""

import collections
import itertools
import re
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import ClassVar

import numpy as np
import pandas as pd
import tensorflow_datasets as tfds

from lgg_jax.data.files import number, read_table
from lgg_jax.data.layouts import cache
from lgg_jax.data.volume import SEQUENCES, Volume
from lgg_jax.errors import UserError

EXPECTED_FILES = "patient folders with *_flair.nii.gz or *-t2f.nii.gz (BraTS)"
TABLES = ("name_mapping*.csv", "survival*.csv")
GRADES = {"LGG": 2.0, "HGG": 4.0}
MAX_VOXELS = 512**3
_FILE_NAME = re.compile(r"[^.].*[_-](flair|t2f|t1|t1n|t1ce|t1c|t1gd|t2|t2w|seg|segm)\.nii(\.gz)?", re.IGNORECASE)
_OTHER_NAMES = {"t2f": "flair", "t1n": "t1", "t1c": "t1ce", "t1gd": "t1ce", "t2w": "t2", "segm": "seg"}
_DEPTHS = ("*", "*/*", "*/*/*")  # patient folders relative to data_dir; their depth differs between the archives

CITATION = """\
@article{menze2015brats,
  title = {The Multimodal Brain Tumor Image Segmentation Benchmark (BRATS)},
  author = {Menze, Bjoern H. and Jakab, Andras and Bauer, Stefan and others},
  journal = {IEEE Transactions on Medical Imaging}, volume = {34}, number = {10}, pages = {1993--2024}, year = {2015},
  doi = {10.1109/TMI.2014.2377694}
}
@article{bakas2017advancing,
  title = {Advancing The Cancer Genome Atlas glioma MRI collections with expert segmentation labels and radiomic
           features},
  author = {Bakas, Spyridon and Akbari, Hamed and Sotiras, Aristeidis and others},
  journal = {Scientific Data}, volume = {4}, pages = {170117}, year = {2017}, doi = {10.1038/sdata.2017.117}
}
"""


def matches(data_dir) -> bool:
    """Whether data_dir has this layout."""
    return bool(patient_folders(data_dir))


def patient_folders(data_dir) -> list[Path]:
    """Folders with a FLAIR file, at most three levels below data_dir, sorted by name."""
    return [folder for folder, names in scan_folders(data_dir).items() if "flair" in names]


def scan_folders(data_dir) -> dict[Path, set[str]]:
    """Folders with any scan of this layout, sorted by name, and the sequences (or "seg") in each."""
    folders = collections.defaultdict(set)
    for path in (path for depth in _DEPTHS for path in Path(data_dir).glob(f"{depth}/*.nii*")):
        if name := sequence(path):
            folders[path.parent].add(name)
    return dict(sorted(folders.items(), key=lambda item: (item[0].name, item[0])))


def sequence(path: Path) -> str | None:
    """The sequence that a file name states: one of SEQUENCES, "seg", or None for any other name."""
    match = _FILE_NAME.fullmatch(path.name)
    return _OTHER_NAMES.get(match[1].lower(), match[1].lower()) if match else None


def scan_files(folder: Path) -> dict[str, Path]:
    """Files of a patient folder by sequence (or "seg"); UserError if two files have the same sequence."""
    files = {}
    for path in sorted(folder.glob("*.nii*")):
        name = sequence(path)
        if name in files:
            raise UserError(f"two files for {name} ({files[name]} and {path.name})", "keep one of the two")
        if name:
            files[name] = path
    return files


def sequences(data_dir) -> Sequence[str]:
    """The channels of every volume of the data set: t1, flair, t1ce, and t2 if any patient has it."""
    has_t2 = any({"flair", "t2"} <= names for names in scan_folders(data_dir).values())
    return SEQUENCES if has_t2 else SEQUENCES[:3]


def read_clinical(data_dir) -> dict[str, dict[str, float | None]]:
    """Grade (2.0, 4.0 or None) and age in years by patient, from name_mapping*.csv and survival*.csv.

    If the parent folder of a patient is HGG/ or LGG/, it overrides the grade in the table.
    """
    names, survival = (table_rows(data_dir, pattern) for pattern in TABLES)
    grades = {patient: _grade(row, place) for patient, (row, place) in names.items()}
    ages = {patient: number(row, "Age", place) for patient, (row, place) in survival.items()}
    parents = [(folder.name, folder.absolute().parent.name) for folder in patient_folders(data_dir)]
    grades |= {patient: GRADES[parent] for patient, parent in parents if parent in GRADES}
    return {name: {"grade": grades.get(name), "age": ages.get(name)} for name in sorted(grades.keys() | ages.keys())}


def tcga_ids(data_dir) -> dict[str, str]:
    """TCGA barcodes (TCGA-CS-4941) of the patients that are from TCGA, from name_mapping*.csv."""
    rows = {name: row for name, (row, _) in table_rows(data_dir, TABLES[0]).items()}
    ids = {name: row.get("TCGA_TCIA_subject_ID", "") for name, row in rows.items()}
    return {name: barcode for name, barcode in ids.items() if barcode.startswith("TCGA")}


def table_files(data_dir, pattern: str = "*.csv") -> list[Path]:
    """CSV tables in data_dir and in the parent folders of the patient folders."""
    folders = {Path(data_dir)} | {folder.parent for folder in patient_folders(data_dir)}
    folders |= {folder.parent for folder in folders if folder.name in GRADES and folder != Path(data_dir)}
    return sorted(path for folder in folders for path in folder.glob(pattern))


def table_rows(data_dir, pattern: str) -> dict[str, tuple[dict[str, str], str]]:
    """{patient: (row, "FILE row NUMBER")}, by the id of any year (columns such as BraTS_2019_subject_ID, Brats20ID)."""
    rows = {}
    for path in table_files(data_dir, pattern):
        for index, row in read_table(path):
            ids = {cell for name, cell in row.items() if re.fullmatch(r"brats.*id", name, re.IGNORECASE)}
            rows |= dict.fromkeys(ids - {"", "NA"}, (row, f"{path} row {index}"))
    return rows


def _grade(row: dict[str, str], place: str) -> float | None:
    cell = row.get("Grade", "").upper()
    if cell in ("", "NA"):
        return None
    if cell not in GRADES:
        raise UserError(f"{place}: Grade is '{cell}', not HGG or LGG", "correct or empty the cell")
    return GRADES[cell]


def read_scan(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read a NIfTI file.

    Returns:
      Voxels (x, y, z) of the number type in the file, and the affine (4, 4) to millimetres (RAS).

    Raises:
      UserError: the file is unreadable, not three-dimensional or too large, or has values that are not finite numbers.
    """
    nibabel = load_nibabel()
    remedy = "restore the file from the data set"
    try:
        image = nibabel.load(path)
        # Only the header has been read here, so a file larger than the memory is refused before it is unpacked.
        if len(image.shape) != 3 or not 0 < np.prod(image.shape, dtype=float) <= MAX_VOXELS:
            raise UserError(f"{path} has shape {image.shape}", f"provide a 3-D scan of at most {MAX_VOXELS} voxels")
        voxels = np.asarray(image.dataobj)
    # The errors that nibabel and gzip raise for truncated or overwritten files.
    except (OSError, EOFError, ValueError, zlib.error, nibabel.filebasedimages.ImageFileError,
            nibabel.spatialimages.HeaderDataError) as error:
        raise UserError(f"{path} cannot be read as NIfTI ({' '.join(str(error).split())})", remedy) from error
    if voxels.dtype.kind not in "iuf" or not np.isfinite(voxels).all():
        raise UserError(f"{path} contains values that are not finite numbers", remedy)
    return voxels, image.affine


def load_nibabel() -> ModuleType:
    """Import nibabel, an optional library; UserError if it is not installed."""
    try:
        import nibabel
    except ImportError as error:
        raise UserError("BraTS files need nibabel, which is not installed", "pip install 'lgg-jax[nifti]'") from error
    return nibabel


def as_volume(
    folder: Path, files: dict[str, Path], scans: dict[str, tuple], clinical: dict, names: Sequence[str]
) -> Volume:
    """Combine the scans of a patient into a Volume.

    Args:
      folder: patient folder; its name is the patient.
      files: files by sequence, as `scan_files` returns them.
      scans: (voxels, affine) of each file, as `read_scan` returns them.
      clinical: clinical values of the patient.
      names: sequences that become channels, in this order. FLAIR replaces a missing one.

    Returns:
      Volume with image (slice, height, width, channel) int16.

    Raises:
      UserError: a scan and the FLAIR differ in shape, or in an element of the affine by more than 0.01 mm.
    """
    from lgg_jax.data.axial import axial_grid

    flair, affine = scans["flair"]
    for name, (voxels, other) in scans.items():
        if voxels.shape != flair.shape or not np.allclose(other, affine, rtol=0, atol=0.01):
            what = "affine" if voxels.shape == flair.shape else f"shape ({voxels.shape} and {flair.shape})"
            wrong = f"{files[name]} and {files['flair'].name} differ in {what}"
            raise UserError(wrong, "resample it to the grid of the FLAIR")
    grid = axial_grid(affine, files["flair"])
    channels = [grid.turn(_int16(scans.get(name, scans["flair"])[0])) for name in names]
    mask = grid.turn(scans["seg"][0]) > 0 if "seg" in scans else None
    index = np.arange(1, len(channels[0]) + 1, dtype=np.int32)
    return Volume(folder.name, np.stack(channels, axis=-1), mask, index, clinical)


def _int16(voxels: np.ndarray) -> np.ndarray:
    """Voxels as int16: unchanged if int16 can represent them, else scaled to 0 … 32767, because MRI has no unit."""
    low, high = float(voxels.min()), float(voxels.max())
    if low >= -(2**15) and high < 2**15 and (voxels.dtype.kind in "iu" or np.array_equal(voxels, np.rint(voxels))):
        return voxels.astype(np.int16)
    return np.rint((voxels - low) * ((2**15 - 1) / max(high - low, 1e-30))).astype(np.int16)


def read_volume(folder: Path, clinical: dict, names: Sequence[str] = SEQUENCES) -> Volume:
    """Read a patient folder as a Volume; UserError if a file is unreadable or is not on the grid of the FLAIR."""
    files = scan_files(folder)
    return as_volume(folder, files, {name: read_scan(path) for name, path in files.items()}, clinical, names)


def list_patients(data_dir) -> pd.DataFrame:
    """One row per patient, sorted: patient, folder, institution, grade (2, 4 or missing). No voxel is read."""
    folders = patient_folders(data_dir)
    clinical = read_clinical(data_dir)
    names = [folder.name for folder in folders]
    return cache.patient_table(data_dir, names, folders, [clinical.get(name, {}).get("grade") for name in names])


class Brats(cache.SliceBuilder):
    """TFDS builder of BraTS: one example per slice, the slices of a patient in order."""

    name = "brats"
    VERSION = tfds.core.Version("1.1.0")
    RELEASE_NOTES: ClassVar = {"1.1.0": "T2 if the data set has it.", "1.0.0": "First version."}
    MANUAL_DOWNLOAD_INSTRUCTIONS = """
    Register for the challenge at https://www.med.upenn.edu/cbica/brats2020/data.html, and unpack the training data into
    the manual folder. Keep name_mapping.csv and survival_info.csv at their places in the archive.
    """
    IMAGE_DTYPE = np.int16
    IMAGE_CHANNELS = None
    ABOUT: ClassVar = {
        "description": "Skull-stripped brain MRI of patients with glioma (BraTS) with masks of the whole tumour.",
        "homepage": "https://www.med.upenn.edu/cbica/brats2020/data.html",
        "citation": CITATION,
    }

    @staticmethod
    def source_files(data_dir) -> list[Path]:
        """The files that a prepared copy depends on: the scans that are read, and the tables."""
        scans = [path for folder in patient_folders(data_dir) for path in folder.glob("*.nii*") if sequence(path)]
        return scans + table_files(data_dir)

    @staticmethod
    def read_volumes(data_dir) -> Iterator[Volume]:
        """Read every patient's volume from the source files."""
        clinical, names = read_clinical(data_dir), sequences(data_dir)
        for row in list_patients(data_dir).itertuples():
            yield read_volume(Path(row.folder), clinical.get(row.patient, {}), names)


def time_points(folders: list[Path]) -> list[tuple[str, str]]:
    """Pairs of scans of the same patient, by the names of 2023: BraTS-GLI-<patient>-<time point>."""
    pairs = itertools.pairwise(folder.name for folder in folders)
    return [(a, b) for a, b in pairs if re.fullmatch(r"BraTS-.*-\d{3}", a) and a[:-4] == b[:-4]]


BUILDER = Brats


def load_volumes(data_dir, cache_dir="", patients=None) -> Iterator[Volume]:
    """Volumes of a BraTS folder: all, or those of `patients`. The cache is prepared on first use."""
    folders = patient_folders(data_dir)
    for name in sequences(data_dir):
        missing = [folder.name for folder in folders if name not in scan_files(folder)]
        if missing:
            few = ", ".join(missing[:3]) + ", …" * (len(missing) > 3)
            cache.warn_once(f"no {name} sequence ({len(missing)} patients of {data_dir}: {few}); FLAIR replaces it")
    for first, second in time_points(folders):
        cache.warn_once(f"{first} and {second} are scans of the same patient but count as two; splits may leak")
    return cache.load_volumes(Brats, data_dir, cache_dir, patients)
