"""Integrity check of the kaggle_3m layout.

    check(report, "kaggle_3m")                          # adds to report.findings
"""

import collections
from pathlib import Path

import numpy as np

from lgg_jax.data.checks.findings import Report, first_six
from lgg_jax.data.clinical import read_clinical
from lgg_jax.data.layouts import cache, kaggle
from lgg_jax.errors import UserError


def check(report: Report, data_dir) -> None:
    """Read every slice once and add missing, unreadable or inconsistent files to the report."""
    root, *others = kaggle.find_roots(data_dir)
    for other in others:
        report.odd(f"{other} is a second copy of the data", f"only {root} is used, the copy can be removed")
    folders = kaggle.patient_folders(root)
    _check_folders(report, root, folders)
    _check_clinical(report, root, {kaggle.patient_id(folder.name) for folder in folders})
    for folder in folders:
        _check_patient(report, folder)


def _check_folders(report: Report, root: Path, folders: list[Path]) -> None:
    for folder in sorted(set(root.iterdir()) - set(folders)):
        if folder.is_dir() and next(folder.glob("*.tif"), None):
            report.odd(f"{folder} has images but no masks and is ignored", "add …_mask.tif files or move it away")
    by_patient = collections.defaultdict(list)
    for folder in folders:
        by_patient[kaggle.patient_id(folder.name)].append(folder.name)
    for patient, names in by_patient.items():
        if len(names) > 1:
            report.error(f"patient {patient} has {len(names)} folders ({root}: {', '.join(names)})", "keep one of them")
    report.patients = len(by_patient)


def _check_clinical(report: Report, root: Path, patients: set[str]) -> None:
    path = root / "data.csv"
    if not path.exists():
        report.odd(f"{path} is missing", "restore it from the data set: grades and subgroups need it")
        return
    try:
        clinical = read_clinical(root)
    except UserError as error:
        report.add_exception(error)
        return
    for patient in sorted(clinical.keys() - patients):
        remedy = "restore the folder if it was lost; the row is ignored"
        report.odd(f"patient {patient} has a row but no folder ({path})", remedy)
    for patient in sorted(patients - clinical.keys()):
        remedy = "add a row if the clinical values are known; they count as missing"
        report.odd(f"patient {patient} has no row ({path})", remedy)
    for patient in sorted(patients & clinical.keys()):
        if all(value is None for value in clinical[patient].values()):
            remedy = "fill in the row if the values are known; they count as missing"
            report.odd(f"patient {patient} has no clinical value ({path})", remedy)


def _check_patient(report: Report, folder: Path) -> None:
    try:
        images, masks = kaggle.slice_files(folder)
    except UserError as error:
        report.add_exception(error)
        return
    for error in cache.unpaired(images, masks):
        report.add_exception(error)
    numbers = images.keys() | masks.keys()
    gaps = sorted(set(range(1, max(numbers) + 1)) - numbers)
    if gaps:
        wrong = f"slices missing between 1 and {max(numbers)}: {first_six(gaps)} ({folder})"
        report.odd(wrong, "restore the files if they were lost")
    report.slices += len(numbers)
    pairs = [kaggle.Pair(index, images[index], masks[index]) for index in sorted(images.keys() & masks.keys())]
    _check_pixels(report, folder, pairs)


def _check_pixels(report: Report, folder: Path, pairs: list[kaggle.Pair]) -> None:
    patient, slices = kaggle.patient_id(folder.name), []
    for pair in pairs:
        try:
            image, mask = kaggle.read_slice(pair)
        except UserError as error:
            report.add_exception(error)
            continue
        _check_mask(report, pair.mask, mask)
        slices.append((pair.image, image, mask > 0))
    has_tumour, replaced = report.add_slices(patient, slices)
    if slices:
        report.check_patient(folder, has_tumour, replaced)


def _check_mask(report: Report, path: Path, mask: np.ndarray) -> None:
    values = np.unique(mask)
    if np.count_nonzero(values) > 1:
        wrong = f"{path} contains the values {first_six(values)}"
        report.error(wrong, "store masks as 0 and 255; resize them with nearest-neighbour interpolation")
