"""Is a plain folder of images and masks whole, and what is odd in it?

    check(report, "mine")                               # adds to report.findings
"""

import collections
from pathlib import Path

import numpy as np

from lgg_jax.data.checks.findings import Report, shown
from lgg_jax.data.clinical import FIELDS
from lgg_jax.data.files import read_table
from lgg_jax.data.layouts import cache, folder
from lgg_jax.errors import UserError

COLUMNS = ("file", "patient", *FIELDS)


def check(report: Report, data_dir) -> None:
    """Reads every picture of the data set once and notes what is wrong or odd."""
    try:
        images, masks = folder.find_pairs(data_dir)
        cases = folder.read_cases(data_dir)
    except UserError as error:
        report.refused(error)
        return
    if masks is None:
        report.odd(f"{data_dir} has no masks/", "train and evaluate need it")
    for error in cache.unpaired(images, images if masks is None else masks):
        report.refused(error)
    _check_cases(report, data_dir, images, cases)
    patients = collections.defaultdict(list)
    for stem, path in images.items():
        patient = cases[stem].patient if stem in cases else None
        patients[patient or stem].append((path, masks.get(stem) if masks else None))
    report.patients, report.slices = len(patients), len(images)
    _check_files(report, data_dir, patients)
    if not report.count("error"):
        try:
            folder.find_patients(data_dir)
        except UserError as error:
            report.refused(error)


def _check_cases(report: Report, data_dir, images: dict[str, Path], cases: dict[str, folder.Case]) -> None:
    table = Path(data_dir) / "cases.csv"
    if not folder.knows_patients(cases):
        report.odd(f"{data_dir}: {folder.NO_PATIENTS}", "name the patients in cases.csv (columns file, patient)")
    for column in read_table(table)[0][1] if cases else ():
        if column not in COLUMNS and column.lower() in COLUMNS:
            report.odd(f"{table}: column {column} is not read", f"call it {column.lower()}")
    unused, missing = [stem for stem in cases if stem not in images], [stem for stem in images if stem not in cases]
    if unused:
        report.odd(f"{table}: no image of {shown(unused)}", "these rows are not used; restore the images if lost")
    if missing and cases:
        found = report.error if folder.knows_patients(cases) else report.odd
        found(f"{table}: no row for {shown(missing)}", "add the rows")


def _check_files(report: Report, data_dir, patients: dict[str, list[tuple[Path, Path | None]]]) -> None:
    healthy, replaced, labels = [], collections.Counter(), []
    for patient, files in patients.items():
        slices = []
        for path, mask_path in files:
            try:
                slices.append((path, *_read(path, mask_path, labels)))
            except UserError as error:
                report.refused(error)
        tumour, filled = report.add_slices(patient, slices)
        replaced[filled] += 1
        if slices and slices[0][2] is not None and not tumour:
            healthy.append(patient)
    if healthy:
        what = f"{data_dir}: no tumour of {len(healthy)} patients: {shown(healthy)}"
        report.odd(what, "their volume Dice is undefined")
    for filled in sorted(filter(None, replaced)):
        what = f"{data_dir}: FLAIR stands in for {filled} of {replaced[filled]} patients"
        report.odd(what, "train with the missing-sequence augmentation")
    if labels:
        remedy = "all above 0 counts as tumour; in a JPEG all above half"
        report.odd(f"{len(labels)} masks hold more than one value: {shown(labels)}", remedy)


def _read(path: Path, mask_path: Path | None, labels: list[str]) -> tuple[np.ndarray, np.ndarray | None]:
    """Image and mask; masks of more than one value are added to `labels`."""
    image = folder.read_pixels(path)
    if mask_path is None:
        return image, None
    mask = folder.read_mask(mask_path)
    folder.same_size(mask_path, mask, path, image)
    values = np.unique(folder.read_labels(mask_path))
    if np.count_nonzero(values) > 1:
        labels.append(f"{mask_path} ({shown(values)})")
    return image, mask
