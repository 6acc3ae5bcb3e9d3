"""A plain folder of pictures, `images/` and `masks/` with equal stems, and its TFDS builder.

    list_patients("mine")              # DataFrame: patient, folder, institution, grade
    for volume in load_volumes("mine"):
        print(volume.patient, volume.image.shape)

PNG, TIFF or JPEG of any size; an image has one channel (FLAIR, which then stands for all three) or three: T1, FLAIR,
T1 with contrast. `cases.csv`, if there is one, has a row a file:

    file,patient,grade,age             the stem, the patient, the grade (2, 3, …), and more clinical fields as numbers
    p01_s1,p01,2,44

Slices of a patient are in natural order of their names, 2 before 10. Without a column `patient`, each file is one.
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

LOOKS_FOR = "images/ and masks/ (plain folder)"
FORMATS = ["PNG", "TIFF", "JPEG"]
NO_PATIENTS = (
    "each file counts as a patient of its own, so splits may leak: two slices of one patient may come to train and test"
)
_SUFFIXES = (".png", ".tif", ".tiff", ".jpg", ".jpeg")


class Case(NamedTuple):
    """A row of cases.csv: `patient` is None without such a column."""

    patient: str | None
    clinical: dict[str, float | None]


class Patient(NamedTuple):
    """A patient's images, in order, with their masks (None where the data has none)."""

    name: str
    images: list[Path]
    masks: list[Path | None]
    clinical: dict[str, float | None]


def found(data_dir) -> bool:
    """Whether this layout is what lies in data_dir."""
    return (Path(data_dir) / "images").is_dir()


def natural(name: str) -> tuple:
    """A key that sorts 2 before 10."""
    return [int(part) if index % 2 else part.lower() for index, part in enumerate(re.split(r"(\d+)", name))], name


def find_files(folder: Path) -> dict[str, Path]:
    """Pictures directly in `folder` by stem, in natural order; UserError where a stem is there twice."""
    paths = [path for path in folder.iterdir() if path.suffix.lower() in _SUFFIXES and path.name[0] != "."]
    files = {}
    for path in sorted(paths, key=lambda path: natural(path.name)):
        if path.stem in files:
            raise UserError(f"{path} has the stem of {files[path.stem].name}", "keep one of the two")
        files[path.stem] = path
    return files


def find_pairs(data_dir) -> tuple[dict[str, Path], dict[str, Path] | None]:
    """Images and masks by stem; None in place of the masks where there is no folder masks/."""
    images, masks = (Path(data_dir) / name for name in ("images", "masks"))
    return find_files(images), find_files(masks) if masks.is_dir() else None


def read_cases(data_dir) -> dict[str, Case]:
    """Rows of cases.csv by stem; empty without that file.

    Raises:
      UserError: no column `file`, a file twice, an empty patient, or a clinical value that is no number.
    """
    path = Path(data_dir) / "cases.csv"
    cases = {}
    for row, record in read_table(path, ["file"]) if path.exists() else ():
        place, name = f"{path} row {row}", record["file"]
        name = Path(name).stem if name.lower().endswith(_SUFFIXES) else name
        if not name or name in cases:
            raise UserError(f"{place} names file '{name}'" + " again" * bool(name), "leave one row per file")
        if record.get("patient") == "":
            raise UserError(f"{place} has no patient", "fill it in, or remove the column: each file is then a patient")
        cases[name] = Case(record.get("patient"), {field: number(record, field, place) for field in FIELDS})
    return cases


def knows_patients(cases: dict[str, Case]) -> bool:
    """Whether cases.csv says which files are of one patient."""
    return any(case.patient is not None for case in cases.values())


def find_patients(data_dir) -> list[Patient]:
    """Patients in natural order.

    Raises:
      UserError: an image without mask or the reverse, a file without a row that names its patient, or rows of one
        patient that contradict each other.
    """
    images, masks = find_pairs(data_dir)
    for error in cache.unpaired(images, images if masks is None else masks):
        raise error
    if not images:
        raise UserError(f"no pictures in {data_dir}/images", f"expected {', '.join(FORMATS)}")
    cases, groups = read_cases(data_dir), {}
    for stem in images:
        if stem not in cases and knows_patients(cases):
            raise UserError(f"{data_dir}/cases.csv has no row for {images[stem].name}", "add it with its patient")
        patient = cases[stem].patient if stem in cases else None
        groups.setdefault(patient or stem, []).append(stem)
    return [
        Patient(
            name, [images[stem] for stem in stems], [masks and masks[stem] for stem in stems],
            _agreed(name, [cases[stem].clinical for stem in stems if stem in cases], data_dir),
        )
        for name, stems in sorted(groups.items(), key=lambda group: natural(group[0]))
    ]  # fmt: skip


def _agreed(patient: str, rows: list[dict], data_dir) -> dict[str, float | None]:
    """The values of all rows of a patient, which may be given in one row or in all."""
    values = {field: {row[field] for row in rows} - {None} for field in FIELDS}
    for field, given in values.items():
        if len(given) > 1:
            wrong = f"{data_dir}/cases.csv gives patient {patient} the {field} {' and '.join(map(str, sorted(given)))}"
            raise UserError(wrong, "correct one of the rows")
    return {field: next(iter(given), None) for field, given in values.items()}


def read_pixels(path: Path) -> np.ndarray:
    """(height, width, 3) float32 as stored, one channel repeated; UserError for other numbers of channels."""
    image = read_image(path, FORMATS)
    pixels = np.asarray(image.convert("RGB") if image.mode == "P" else image, np.float32)
    if pixels.ndim == 3 and pixels.shape[2] != 3:
        raise UserError(f"{path} has {pixels.shape[2]} channels", "save it with one or with three")
    if not np.isfinite(pixels).all():
        raise UserError(f"{path} holds values that are no finite numbers", "save it anew")
    return pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, axis=-1)


def read_labels(path: Path) -> np.ndarray:
    """Values of a mask as stored, (height, width): the largest of the channels, without the alpha channel."""
    image = read_image(path, FORMATS)
    pixels = np.asarray(image.convert(image.mode.removesuffix("A")) if image.mode in ("LA", "RGBA") else image)
    return pixels.max(axis=2) if pixels.ndim == 3 else pixels


def read_mask(path: Path) -> np.ndarray:
    """(height, width) bool: tumour where the mask is above 0; in a JPEG, which blurs, above half its largest value."""
    labels = read_labels(path)
    return labels > labels.max() / 2 if path.suffix.lower() in (".jpg", ".jpeg") else labels > 0


def same_size(path: Path, pixels: np.ndarray, other: Path, expected: np.ndarray) -> None:
    """UserError where two pictures differ in height or width."""
    if pixels.shape[:2] != expected.shape[:2]:
        sizes = f"{pixels.shape[0]}×{pixels.shape[1]} pixels and {other} {expected.shape[0]}×{expected.shape[1]}"
        raise UserError(f"{path} has {sizes}", "bring them to one size")


def read_volume(patient: Patient) -> Volume:
    """A patient as a Volume: image (slice, height, width, 3) float32, slices counted from 1."""
    images = [read_pixels(path) for path in patient.images]
    masks = [path and read_mask(path) for path in patient.masks]
    for image, path, mask, mask_path in zip(images, patient.images, masks, patient.masks, strict=True):
        same_size(path, image, patient.images[0], images[0])
        if mask is not None:
            same_size(mask_path, mask, path, image)
    index = np.arange(1, len(images) + 1, dtype=np.int32)
    return Volume(
        patient.name, np.stack(images), None if masks[0] is None else np.stack(masks), index, patient.clinical
    )


def list_patients(data_dir) -> pd.DataFrame:
    """A row a patient: patient, folder, institution, grade (or missing). No pixel is read."""
    patients = find_patients(data_dir)
    names, grades = [patient.name for patient in patients], [patient.clinical["grade"] for patient in patients]
    return cache.patient_table(data_dir, names, [Path(data_dir) / "images"] * len(names), grades)


class Folder(cache.SliceBuilder):
    """A plain folder of images and masks: one example a slice, slices of a patient in order."""

    name = "folder"
    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar = {"1.0.0": "First version."}
    MANUAL_DOWNLOAD_INSTRUCTIONS = "Put images/ and masks/ into the manual folder, and cases.csv if there is one."
    IMAGE_DTYPE = np.float32  # holds pictures of 8 and of 16 bits, and TIFFs of fractions
    ABOUT: ClassVar = {"description": "Brain MRI slices with tumour masks, from a plain folder."}

    @staticmethod
    def source_files(data_dir) -> list[Path]:
        """What a prepared copy depends on: all pictures, and the table."""
        images, masks = find_pairs(data_dir)
        return [*images.values(), *(masks or {}).values(), *Path(data_dir).glob("cases.csv")]

    @staticmethod
    def read_volumes(data_dir) -> Iterator[Volume]:
        """Every patient's volume, straight from the source files."""
        return map(read_volume, find_patients(data_dir))


BUILDER = Folder


def load_volumes(data_dir, cache_dir="", patients=None) -> Iterator[Volume]:
    """Volumes of a plain folder, prepared on first use; all of them or those named in `patients`."""
    if not knows_patients(read_cases(data_dir)):
        cache.warn_once(f"{data_dir}: {NO_PATIENTS}")
    return cache.load_volumes(Folder, data_dir, cache_dir, patients)
