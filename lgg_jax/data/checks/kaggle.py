"""Is a data folder of any layout whole, and what is odd in it?

    python -m lgg_jax check --data_dir=kaggle_3m

One line per finding. `error`: training would stop or learn something wrong; the exit code is then 1. `odd`: worth
knowing, nothing to mend.
"""

import collections
from pathlib import Path

import numpy as np
from absl import flags

from lgg_jax.data import dataset
from lgg_jax.data.checks import brats as check_brats
from lgg_jax.data.checks import folder as check_folder
from lgg_jax.data.checks.findings import Report, shown
from lgg_jax.data.clinical import read_clinical
from lgg_jax.data.layouts import brats, cache, kaggle
from lgg_jax.data.layouts import folder as plain_folder
from lgg_jax.errors import UserError


def define_flags(flag_values: flags.FlagValues) -> None:
    about = "Folder in the kaggle_3m or the BraTS layout, or one of images/ and masks/."
    flags.DEFINE_string("data_dir", None, about, flag_values=flag_values, required=True)


def main(flag_values: flags.FlagValues) -> int:
    report = check(flag_values.data_dir)
    for severity, line in report.findings:
        print(f"{severity:5}  {line}")
    print(f"{report.patients} patients, {report.slices} slices, {report.with_tumour} with tumour; "
          f"{report.count('error')} errors, {report.count('odd')} odd")  # fmt: skip
    return 1 if report.count("error") else 0


def check(data_dir) -> Report:
    """Reads every file of the data set once. UserError when there is no such folder, or no patient in it."""
    report = Report()
    layouts = {kaggle: check_kaggle, brats: check_brats.check, plain_folder: check_folder.check}
    layouts[dataset.layout(data_dir)](report, data_dir)
    report.compare_patients()
    return report


def check_kaggle(report: Report, data_dir) -> None:
    """The kaggle_3m layout."""
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
