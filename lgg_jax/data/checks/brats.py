"""Integrity check of the BraTS layout.

    check(report, "MICCAI_BraTS2020_TrainingData")      # adds to report.findings
"""

import collections
import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lgg_jax.data.checks.findings import Report, first_six
from lgg_jax.data.layouts import brats
from lgg_jax.data.volume import Volume
from lgg_jax.errors import UserError


def check(report: Report, data_dir) -> None:
    """Read every scan once and add missing, unreadable or inconsistent files to the report."""
    brats.load_nibabel()  # raises one error; otherwise there would be one for each file
    folders = brats.patient_folders(data_dir)
    names = collections.Counter(path.name for path in folders)
    report.patients = len(names)
    for patient, count in names.items():
        if count > 1:
            report.error(f"patient {patient} has {count} folders ({data_dir})", "keep one of them")
    for path in brats.scan_folders(data_dir).keys() - set(folders):
        report.odd(f"{path} has scans but no FLAIR and is ignored", "add the FLAIR or move the folder away")
    for first, second in brats.time_points(folders):
        wrong = f"{first} and {second} are scans of the same patient"
        report.odd(wrong, "splits may leak; remove one of them, or set config.data.splits to a file of your own")
    try:
        _check_tables(report, data_dir, set(names))
    except UserError as error:
        report.add_exception(error)
    sequences = brats.sequences(data_dir)
    masked = [path for path in folders if _check_scans(report, path, sequences)]
    unmasked = [path.name for path in folders if path not in masked]
    if unmasked:
        add = report.error if masked else report.odd  # a data set without any mask is for prediction
        add(f"no …_seg file for {first_six(unmasked)} ({data_dir})", "add the masks: train and evaluate need them")


def _check_tables(report: Report, data_dir, patients: set[str]) -> None:
    clinical = brats.read_clinical(data_dir)
    ungraded = sorted(name for name in patients if clinical.get(name, {}).get("grade") is None)
    if ungraded:
        remedy = "restore name_mapping.csv, or the folders HGG and LGG"
        report.odd(f"no grade for {first_six(ungraded)} ({data_dir})", remedy)
    rows = collections.defaultdict(set)
    for pattern in brats.TABLES:
        for name, (_, place) in brats.table_rows(data_dir, pattern).items():
            rows[place].add(name)
    unused = sorted(f"{place} ({max(names)})" for place, names in rows.items() if not names & patients)
    if unused:
        wrong = f"{len(unused)} table rows have no patient folder: {first_six(unused)}"
        report.odd(wrong, "restore the folders if they were lost; these rows are ignored")
    from_tcga = sorted(f"{name} ({barcode})" for name, barcode in brats.tcga_ids(data_dir).items() if name in patients)
    if from_tcga:
        wrong = f"{len(from_tcga)} patients are from TCGA and may also be in kaggle_3m: {first_six(from_tcga)}"
        report.odd(wrong, "exclude them from the evaluation of a model that was trained on the other data set")


def _check_scans(report: Report, path: Path, sequences: Sequence[str]) -> bool:
    """Check a patient's files. Return whether a mask is among them."""
    try:
        files = brats.scan_files(path)
    except UserError as error:
        report.add_exception(error)
        return True
    scans = {}
    for name, file in files.items():
        try:
            scans[name] = brats.read_scan(file)
        except UserError as error:
            report.add_exception(error)
    if "seg" in scans and not np.isin(scans["seg"][0], range(5)).all():
        values = np.unique(scans["seg"][0])
        remedy = "store the labels 0 to 4; resample them with nearest-neighbour interpolation"
        report.error(f"{files['seg']} contains the values {first_six(values)}", remedy)
    if len(scans) == len(files):
        try:
            _check_volume(report, path, brats.as_volume(path, files, scans, {}, sequences))
        except UserError as error:
            report.add_exception(error)
    return "seg" in files


def _check_volume(report: Report, path: Path, volume: Volume) -> None:
    report.slices += len(volume.image)
    masks = itertools.repeat(None) if volume.mask is None else volume.mask
    slices = zip(volume.slice_index, volume.image, masks, strict=False)
    rows = [(f"{path} slice {index}", image, mask) for index, image, mask in slices]
    has_tumour, replaced = report.add_slices(volume.patient, rows)
    report.check_patient(path, has_tumour or volume.mask is None, replaced)
