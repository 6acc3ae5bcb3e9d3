"""Integrity check of the plain folder layout.

    check(report, "mine")                               # adds to report.findings
"""

import collections
from pathlib import Path

import numpy as np

from lgg_jax.data.checks.findings import NO_TUMOUR_REMEDY, REPLACED_REMEDY, Report, first_six
from lgg_jax.data.clinical import FIELDS
from lgg_jax.data.files import read_table
from lgg_jax.data.layouts import cache, folder
from lgg_jax.errors import UserError

COLUMNS = ("file", "patient", *FIELDS)


def check(report: Report, data_dir) -> None:
    """Read every image and mask once and add missing, unreadable or inconsistent files to the report."""
    try:
        images, masks = folder.find_pairs(data_dir)
        cases = folder.read_cases(data_dir)
    except UserError as error:
        report.add_exception(error)
        return
    if masks is None:
        report.odd(f"{data_dir} has no folder masks/", "add the masks: train and evaluate need them")
    for error in cache.unpaired(images, images if masks is None else masks):
        report.add_exception(error)
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
            report.add_exception(error)


def _check_cases(report: Report, data_dir, images: dict[str, Path], cases: dict[str, folder.Case]) -> None:
    table = Path(data_dir) / "cases.csv"
    if not folder.has_patients(cases):
        remedy = "list the patient of each file in cases.csv (columns file, patient)"
        report.odd(f"{folder.NO_PATIENTS} ({data_dir})", remedy)
    for column in read_table(table)[0][1] if cases else ():
        if column not in COLUMNS and column.lower() in COLUMNS:
            report.odd(f"column {column} is ignored ({table})", f"rename it to {column.lower()}")
    unused, missing = [stem for stem in cases if stem not in images], [stem for stem in images if stem not in cases]
    if unused:
        remedy = "restore the images if they were lost; these rows are ignored"
        report.odd(f"no image for {first_six(unused)} ({table})", remedy)
    if missing and cases:
        add = report.error if folder.has_patients(cases) else report.odd
        add(f"{table} has no row for {first_six(missing)}", "add the rows")


def _check_files(report: Report, data_dir, patients: dict[str, list[tuple[Path, Path | None]]]) -> None:
    without_tumour, counts, labels = [], collections.Counter(), []
    for patient, files in patients.items():
        slices = []
        for path, mask_path in files:
            try:
                slices.append((path, *_read(path, mask_path, labels)))
            except UserError as error:
                report.add_exception(error)
        has_tumour, replaced = report.add_slices(patient, slices)
        counts[replaced] += 1
        if slices and slices[0][2] is not None and not has_tumour:
            without_tumour.append(patient)
    if without_tumour:
        place = f"{len(without_tumour)} patients of {data_dir}: {first_six(without_tumour)}"
        report.odd(f"no tumour in any mask ({place})", NO_TUMOUR_REMEDY)
    for replaced in sorted(filter(None, counts)):
        place = f"{counts[replaced]} patients of {data_dir}"
        report.odd(f"FLAIR replaces the missing {replaced} ({place})", REPLACED_REMEDY)
    if labels:
        remedy = "all values above 0 count as tumour; in a JPEG, all values above half of the maximum"
        report.odd(f"{len(labels)} masks contain more than one value above 0: {first_six(labels)}", remedy)


def _read(path: Path, mask_path: Path | None, labels: list[str]) -> tuple[np.ndarray, np.ndarray | None]:
    """Read an image and its mask. A mask with more than one value above 0 is added to `labels`."""
    image = folder.read_pixels(path)
    if mask_path is None:
        return image, None
    mask = folder.read_mask(mask_path)
    folder.check_same_size(mask_path, mask, path, image)
    values = np.unique(folder.read_labels(mask_path))
    if np.count_nonzero(values) > 1:
        labels.append(f"{mask_path} ({first_six(values)})")
    return image, mask
