"""Is a folder in the kaggle_3m layout whole, and what is odd in it?

    check(report, "kaggle_3m")                          # adds to report.findings
"""

import collections
from pathlib import Path

import numpy as np

from lgg_jax.data.checks.findings import Report, shown
from lgg_jax.data.clinical import read_clinical
from lgg_jax.data.layouts import cache, kaggle
from lgg_jax.errors import UserError


def check(report: Report, data_dir) -> None:
    """Reads every slice of the data set once and notes what is wrong or odd."""
    root, *others = kaggle.find_roots(data_dir)
    for other in others:
        report.odd(f"{other} holds the data a second time", f"only {root} is read; the copy can be removed")
    folders = kaggle.patient_folders(root)
    _check_folders(report, root, folders)
    _check_clinical(report, root, {kaggle.patient_id(folder.name) for folder in folders})
    for folder in folders:
        _check_patient(report, folder)


def _check_folders(report: Report, root: Path, folders: list[Path]) -> None:
    for folder in sorted(set(root.iterdir()) - set(folders)):
        if folder.is_dir() and next(folder.glob("*.tif"), None):
            report.odd(f"{folder} has images but no masks and is not read", "add …_mask.tif files or move it away")
    by_patient = collections.defaultdict(list)
    for folder in folders:
        by_patient[kaggle.patient_id(folder.name)].append(folder.name)
    for patient, names in by_patient.items():
        if len(names) > 1:
            report.error(f"{root}: patient {patient} has {len(names)} folders: {', '.join(names)}", "keep one of them")
    report.patients = len(by_patient)


def _check_clinical(report: Report, root: Path, patients: set[str]) -> None:
    path = root / "data.csv"
    if not path.exists():
        report.odd(f"{path} is missing", "grades and subgroups need it; restore it from the data set")
        return
    try:
        clinical = read_clinical(root)
    except UserError as error:
        report.refused(error)
        return
    for patient in sorted(clinical.keys() - patients):
        report.odd(f"{path}: {patient} has no folder", "the row is not used; restore the folder if it should be here")
    for patient in sorted(patients - clinical.keys()):
        report.odd(f"{path}: no row for {patient}", "all its clinical values count as missing; add the row if known")
    for patient in sorted(patients & clinical.keys()):
        if all(value is None for value in clinical[patient].values()):
            report.odd(f"{path}: {patient} has no clinical value", "all count as missing; fill the row in if known")


def _check_patient(report: Report, folder: Path) -> None:
    try:
        images, masks = kaggle.slice_files(folder)
    except UserError as error:
        report.refused(error)
        return
    for error in cache.unpaired(images, masks):
        report.refused(error)
    numbers = images.keys() | masks.keys()
    gaps = sorted(set(range(1, max(numbers) + 1)) - numbers)
    if gaps:
        report.odd(f"{folder}: no slice {shown(gaps)} of {max(numbers)}", "restore the files if they were lost")
    report.slices += len(numbers)
    pairs = [kaggle.Pair(index, images[index], masks[index]) for index in sorted(images.keys() & masks.keys())]
    _check_pixels(report, folder, pairs)


def _check_pixels(report: Report, folder: Path, pairs: list[kaggle.Pair]) -> None:
    patient, slices = kaggle.patient_id(folder.name), []
    for pair in pairs:
        try:
            image, mask = kaggle.read_slice(pair)
        except UserError as error:
            report.refused(error)
            continue
        _check_mask(report, pair.mask, mask)
        slices.append((pair.image, image, mask > 0))
    tumour, filled = report.add_slices(patient, slices)
    if slices:
        report.describe(folder, tumour, filled)


def _check_mask(report: Report, path: Path, mask: np.ndarray) -> None:
    values = np.unique(mask)
    if np.count_nonzero(values) > 1:
        what = f"{path} holds the values {shown(values)}"
        report.error(what, "store masks as 0 and 255, resized without interpolation")
