"""Plain folder layout, `images/` and `masks/` with equal file stems, and its TFDS builder.

    list_patients("mine")              # DataFrame: patient, folder, institution, grade
    for volume in load_volumes("mine"):
        print(volume.patient, volume.image.shape)

Files are PNG, TIFF or JPEG of any size. An image has one channel (FLAIR, which then replaces the other two) or three:
T1, FLAIR, T1 with contrast. The table `cases.csv` is optional. It has one row per file:

    file,patient,grade,age             file stem, patient, grade (2, 3, …) and other clinical fields as numbers
    p01_s1,p01,2,44

The slices of a patient are in natural order of their names, 2 before 10. Without a column `patient`, each file counts
as one patient.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np
import pandas as pd
import tensorflow_datasets as tfds

from lgg_jax.data.clinical import FIELDS
from lgg_jax.data.files import number, read_image, read_table
from lgg_jax.data.layouts import cache
from lgg_jax.data.volume import Volume
from lgg_jax.errors import UserError

EXPECTED_FILES = "the folders images/ and masks/ (plain folder)"
FORMATS = ["PNG", "TIFF", "JPEG"]
NO_PATIENTS = (
    "each file counts as one patient, so splits may leak: "
    "slices of the same patient may be in the training set and in the test set"
)
_SUFFIXES = (".png", ".tif", ".tiff", ".jpg", ".jpeg")


class Case(NamedTuple):
    """A row of cases.csv; `patient` is None if there is no such column."""

    patient: str | None
    clinical: dict[str, float | None]


class Patient(NamedTuple):
    """A patient's images in order, and their masks (None if there is no folder masks/)."""

    name: str
    images: list[Path]
    masks: list[Path | None]
    clinical: dict[str, float | None]


def matches(data_dir) -> bool:
    """Whether data_dir has this layout."""
    return (Path(data_dir) / "images").is_dir()


def natural_key(name: str) -> tuple:
    """Sort key for natural order: 2 before 10."""
    return [int(part) if index % 2 else part.lower() for index, part in enumerate(re.split(r"(\d+)", name))], name


def find_files(folder: Path) -> dict[str, Path]:
    """Image files directly in `folder` by stem, in natural order; UserError if two files have the same stem."""
    paths = [path for path in folder.iterdir() if path.suffix.lower() in _SUFFIXES and path.name[0] != "."]
    files = {}
    for path in sorted(paths, key=lambda path: natural_key(path.name)):
        if path.stem in files:
            wrong = f"{path} has the same name as {files[path.stem].name} except for the extension"
            raise UserError(wrong, "keep one of the two")
        files[path.stem] = path
    return files


def find_pairs(data_dir) -> tuple[dict[str, Path], dict[str, Path] | None]:
    """Images and masks by stem; the masks are None if there is no folder masks/."""
    images, masks = (Path(data_dir) / name for name in ("images", "masks"))
    return find_files(images), find_files(masks) if masks.is_dir() else None


def read_cases(data_dir) -> dict[str, Case]:
    """Rows of cases.csv by file stem; empty if there is no cases.csv.

    Raises:
      UserError: the column `file` is missing, two rows name the same file, a row has no file or no patient, or a
        clinical value is not a number.
    """
    path = Path(data_dir) / "cases.csv"
    cases = {}
    for row, record in read_table(path, ["file"]) if path.exists() else ():
        place, name = f"{path} row {row}", record["file"]
        name = Path(name).stem if name.lower().endswith(_SUFFIXES) else name
        if not name or name in cases:
            what = f"names file '{name}' a second time" if name else "names no file"
            raise UserError(f"{place} {what}", "keep one row per file")
        if record.get("patient") == "":
            remedy = "fill in the patient, or remove the column so that each file counts as one patient"
            raise UserError(f"{place} has no patient", remedy)
        cases[name] = Case(record.get("patient"), {field: number(record, field, place) for field in FIELDS})
    return cases


def has_patients(cases: dict[str, Case]) -> bool:
    """Whether cases.csv assigns files to patients."""
    return any(case.patient is not None for case in cases.values())


def find_patients(data_dir) -> list[Patient]:
    """Patients in natural order.

    Raises:
      UserError: there is no image, an image has no mask or a mask no image, cases.csv has patients but no row for an
        image, or rows of the same patient have different clinical values.
    """
    images, masks = find_pairs(data_dir)
    for error in cache.unpaired(images, images if masks is None else masks):
        raise error
    if not images:
        raise UserError(f"no image files in {data_dir}/images", f"add {', '.join(FORMATS)} files")
    cases, groups = read_cases(data_dir), {}
    for stem in images:
        if stem not in cases and has_patients(cases):
            raise UserError(f"{data_dir}/cases.csv has no row for {images[stem].name}", "add a row with its patient")
        patient = cases[stem].patient if stem in cases else None
        groups.setdefault(patient or stem, []).append(stem)
    return [
        Patient(
            name, [images[stem] for stem in stems], [masks and masks[stem] for stem in stems],
            _merge_clinical(name, [cases[stem].clinical for stem in stems if stem in cases], data_dir),
        )
        for name, stems in sorted(groups.items(), key=lambda group: natural_key(group[0]))
    ]  # fmt: skip


def _merge_clinical(patient: str, rows: list[dict], data_dir) -> dict[str, float | None]:
    """The clinical values of a patient. Each value may be in one, several or all of its rows."""
    distinct = {field: {row[field] for row in rows} - {None} for field in FIELDS}
    for field, values in distinct.items():
        if len(values) > 1:
            listed = " and ".join(map(str, sorted(values)))
            wrong = f"{data_dir}/cases.csv has different values of {field} for patient {patient}: {listed}"
            raise UserError(wrong, "correct the rows")
    return {field: next(iter(values), None) for field, values in distinct.items()}


def read_pixels(path: Path) -> np.ndarray:
    """Read an image as (height, width, 3) float32, values as stored. A single channel is repeated.

    Raises:
      UserError: the file is unreadable, does not have one or three channels, or has values that are not finite numbers.
    """
    image = read_image(path, FORMATS)
    pixels = np.asarray(image.convert("RGB") if image.mode == "P" else image, np.float32)
    if pixels.ndim == 3 and pixels.shape[2] != 3:
        raise UserError(f"{path} has {pixels.shape[2]} channels", "save it with one or three channels")
    if not np.isfinite(pixels).all():
        raise UserError(f"{path} contains values that are not finite numbers", "replace them and save it again")
    return pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, axis=-1)


def read_labels(path: Path) -> np.ndarray:
    """Read a mask as (height, width), values as stored: the maximum of the channels without the alpha channel."""
    image = read_image(path, FORMATS)
    pixels = np.asarray(image.convert(image.mode.removesuffix("A")) if image.mode in ("LA", "RGBA") else image)
    return pixels.max(axis=2) if pixels.ndim == 3 else pixels


def read_mask(path: Path) -> np.ndarray:
    """Read a mask as (height, width) bool: the pixels above 0.

    In a JPEG, the pixels above half of the maximum, because JPEG compression blurs edges.
    """
    labels = read_labels(path)
    return labels > labels.max() / 2 if path.suffix.lower() in (".jpg", ".jpeg") else labels > 0


def check_same_size(path: Path, pixels: np.ndarray, other: Path, expected: np.ndarray) -> None:
    """Raise UserError if two images differ in height or width."""
    if pixels.shape[:2] != expected.shape[:2]:
        size, other_size = ("{}×{}".format(*array.shape) for array in (pixels, expected))
        raise UserError(f"{path} has {size} pixels, but {other} has {other_size}", "make them the same size")


def read_volume(patient: Patient) -> Volume:
    """Read a patient as a Volume: image (slice, height, width, 3) float32, slice numbers from 1."""
    images = [read_pixels(path) for path in patient.images]
    masks = [path and read_mask(path) for path in patient.masks]
    for image, path, mask, mask_path in zip(images, patient.images, masks, patient.masks, strict=True):
        check_same_size(path, image, patient.images[0], images[0])
        if mask is not None:
            check_same_size(mask_path, mask, path, image)
    index = np.arange(1, len(images) + 1, dtype=np.int32)
    return Volume(
        patient.name, np.stack(images), None if masks[0] is None else np.stack(masks), index, patient.clinical
    )


def list_patients(data_dir) -> pd.DataFrame:
    """One row per patient: patient, folder, institution, grade (or missing). No pixel is read."""
    patients = find_patients(data_dir)
    names, grades = [patient.name for patient in patients], [patient.clinical["grade"] for patient in patients]
    return cache.patient_table(data_dir, names, [Path(data_dir) / "images"] * len(names), grades)


class Folder(cache.SliceBuilder):
    """TFDS builder of a plain folder: one example per slice, the slices of a patient in order."""

    name = "folder"
    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar = {"1.0.0": "First version."}
    MANUAL_DOWNLOAD_INSTRUCTIONS = "Put images/, masks/ and, optionally, cases.csv into the manual folder."
    IMAGE_DTYPE = np.float32  # represents 8-bit and 16-bit images exactly, and TIFF files with fractions
    ABOUT: ClassVar = {"description": "Brain MRI slices with tumour masks, from a plain folder."}

    @staticmethod
    def source_files(data_dir) -> list[Path]:
        """The files that a prepared copy depends on: images, masks and cases.csv."""
        images, masks = find_pairs(data_dir)
        return [*images.values(), *(masks or {}).values(), *Path(data_dir).glob("cases.csv")]

    @staticmethod
    def read_volumes(data_dir) -> Iterator[Volume]:
        """Read every patient's volume from the source files."""
        return map(read_volume, find_patients(data_dir))


BUILDER = Folder


def load_volumes(data_dir, cache_dir="", patients=None) -> Iterator[Volume]:
    """Volumes of a plain folder: all, or those of `patients`. The cache is prepared on first use."""
    if not has_patients(read_cases(data_dir)):
        cache.warn_once(f"{NO_PATIENTS} ({data_dir})")
    return cache.load_volumes(Folder, data_dir, cache_dir, patients)
