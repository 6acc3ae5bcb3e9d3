"""Is a folder in the BraTS layout whole, and what is odd in it?

    check(report, "MICCAI_BraTS2020_TrainingData")      # adds to report.findings
"""

import collections
import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lgg_jax.data.checks.findings import Report, shown
from lgg_jax.data.layouts import brats
from lgg_jax.data.volume import Volume
from lgg_jax.errors import UserError


def check(report: Report, data_dir) -> None:
    """Reads every scan of the data set once and notes what is wrong or odd."""
    brats.load_nibabel()  # else each file would be one more error
    folders = brats.patient_folders(data_dir)
    names = collections.Counter(path.name for path in folders)
    report.patients = len(names)
    for patient, count in names.items():
        if count > 1:
            report.error(f"{data_dir}: patient {patient} has {count} folders", "keep one of them")
    for path in brats.scan_folders(data_dir).keys() - set(folders):
        report.odd(f"{path} has scans but no FLAIR and is not read", "add it or move the folder away")
    for first, second in brats.time_points(folders):
        report.odd(f"{first} and {second} are scans of one patient", "splits may leak: keep one, or split by hand")
    try:
        _check_tables(report, data_dir, set(names))
    except UserError as error:
        report.refused(error)
    sequences = brats.sequences(data_dir)
    masked = [path for path in folders if _check_scans(report, path, sequences)]
    bare = [path.name for path in folders if path not in masked]
    if bare:
        found = report.error if masked else report.odd  # with none at all, it is data to predict on
        found(f"{data_dir}: no …_seg of {shown(bare)}", "train and evaluate need it")


def _check_tables(report: Report, data_dir, patients: set[str]) -> None:
    clinical = brats.read_clinical(data_dir)
    ungraded = sorted(name for name in patients if clinical.get(name, {}).get("grade") is None)
    if ungraded:
        report.odd(f"{data_dir}: no grade of {shown(ungraded)}", "restore name_mapping.csv, or the folders HGG and LGG")
    rows = collections.defaultdict(set)
    for pattern in brats.TABLES:
        for name, (_, place) in brats.table_rows(data_dir, pattern).items():
            rows[place].add(name)
    unused = sorted(f"{place} ({max(names)})" for place, names in rows.items() if not names & patients)
    if unused:
        report.odd(f"no folder for {len(unused)} rows: {shown(unused)}", "restore the folders if they should be here")
    twice = sorted(f"{name} ({barcode})" for name, barcode in brats.tcga_ids(data_dir).items() if name in patients)
    if twice:
        what = f"{len(twice)} patients are TCGA's and may be in kaggle_3m as well: {shown(twice)}"
        report.odd(what, "leave them out where the other data set was trained on")


def _check_scans(report: Report, path: Path, sequences: Sequence[str]) -> bool:
    """Reads a patient's files; returns whether a mask is among them."""
    try:
        files = brats.scan_files(path)
    except UserError as error:
        report.refused(error)
        return True
    scans = {}
    for name, file in files.items():
        try:
            scans[name] = brats.read_scan(file)
        except UserError as error:
            report.refused(error)
    if "seg" in scans and not np.isin(scans["seg"][0], range(5)).all():
        values = np.unique(scans["seg"][0])
        report.error(f"{files['seg']} holds the values {shown(values)}", "labels are 0 to 4, resampled to the nearest")
    if len(scans) == len(files):
        try:
            _count(report, path, brats.as_volume(path, files, scans, {}, sequences))
        except UserError as error:
            report.refused(error)
    return "seg" in files


def _count(report: Report, path: Path, volume: Volume) -> None:
    report.slices += len(volume.image)
    masks = itertools.repeat(None) if volume.mask is None else volume.mask
    slices = zip(volume.slice_index, volume.image, masks, strict=False)
    rows = [(f"{path} slice {index}", image, mask) for index, image, mask in slices]
    tumour, filled = report.add_slices(volume.patient, rows)
    report.describe(path, tumour or volume.mask is None, filled)
