"""Is a kaggle_3m folder whole, and what is odd in it?

    python -m lgg_jax check --data_dir=kaggle_3m

One line per finding. `error`: training would stop or learn something wrong; the exit code is then 1. `odd`: worth
knowing, nothing to mend.
"""

import collections
import dataclasses
import hashlib
from pathlib import Path

import numpy as np
from absl import flags

from lgg_jax.data import lgg_mri
from lgg_jax.data.clinical import read_clinical
from lgg_jax.errors import UserError


@dataclasses.dataclass
class Report:
    """Findings as (severity, line), and what was counted on the way."""

    findings: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    patients: int = 0
    slices: int = 0
    with_tumour: int = 0
    # Which slices hold the same pixels: (patient, file) by digest.
    digests: dict = dataclasses.field(default_factory=lambda: collections.defaultdict(list))

    def error(self, what: str, remedy: str) -> None:
        self.findings.append(("error", f"{what}; {remedy}"))

    def odd(self, what: str, remedy: str) -> None:
        self.findings.append(("odd", f"{what}; {remedy}"))

    def count(self, severity: str) -> int:
        return sum(found == severity for found, _ in self.findings)


def define_flags(flag_values: flags.FlagValues) -> None:
    flags.DEFINE_string("data_dir", None, "Folder in the kaggle_3m layout.", flag_values=flag_values, required=True)


def main(flag_values: flags.FlagValues) -> int:
    report = check(flag_values.data_dir)
    for severity, line in report.findings:
        print(f"{severity:5}  {line}")
    print(f"{report.patients} patients, {report.slices} slices, {report.with_tumour} with tumour; "
          f"{report.count('error')} errors, {report.count('odd')} odd")  # fmt: skip
    return 1 if report.count("error") else 0


def check(data_dir) -> Report:
    """Reads every file of the data set once. UserError when there is no such folder, or no patient in it."""
    root, *others = lgg_mri.find_roots(data_dir)
    report = Report()
    for other in others:
        report.odd(f"{other} holds the data a second time", f"only {root} is read; the copy can be removed")
    folders = lgg_mri.patient_folders(root)
    _check_folders(report, root, folders)
    _check_clinical(report, root, {lgg_mri.patient_id(folder.name) for folder in folders})
    for folder in folders:
        _check_patient(report, folder)
    _check_duplicates(report)
    return report


def _check_folders(report: Report, root: Path, folders: list[Path]) -> None:
    for folder in sorted(set(root.iterdir()) - set(folders)):
        if folder.is_dir() and next(folder.glob("*.tif"), None):
            report.odd(f"{folder} has images but no masks and is not read", "add …_mask.tif files or move it away")
    by_patient = collections.defaultdict(list)
    for folder in folders:
        by_patient[lgg_mri.patient_id(folder.name)].append(folder.name)
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
        report.findings.append(("error", str(error)))
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
        images, masks = lgg_mri.slice_files(folder)
    except UserError as error:
        report.findings.append(("error", str(error)))
        return
    report.findings.extend(("error", str(error)) for error in lgg_mri.unpaired(images, masks))
    numbers = images.keys() | masks.keys()
    gaps = sorted(set(range(1, max(numbers) + 1)) - numbers)
    if gaps:
        missing = ", ".join(map(str, gaps))
        report.odd(f"{folder}: no slice {missing} of {max(numbers)}", "restore the files if they were lost")
    report.slices += len(numbers)
    pairs = [lgg_mri.Pair(index, images[index], masks[index]) for index in sorted(images.keys() & masks.keys())]
    _check_pixels(report, folder, pairs)


def _check_pixels(report: Report, folder: Path, pairs: list[lgg_mri.Pair]) -> None:
    sizes, tumours, equal = {}, 0, np.array([True, True])
    for pair in pairs:
        try:
            image, mask = lgg_mri.read_slice(pair)
        except UserError as error:
            report.findings.append(("error", str(error)))
            continue
        sizes.setdefault(mask.shape, pair.image)
        tumours += _check_mask(report, pair.mask, mask)
        equal &= (image[..., [0, 2]] == image[..., [1]]).all(axis=(0, 1))
        if np.ptp(image):  # blank slices are alike in all patients
            report.digests[hashlib.sha256(image).digest()].append((lgg_mri.patient_id(folder.name), pair.image))
    for size, path in list(sizes.items())[1:]:
        report.error(f"{path} is {size}, slices before it {next(iter(sizes))}", "make all slices of a patient one size")
    report.with_tumour += tumours
    if sizes and not tumours:
        report.odd(f"{folder}: no tumour in any mask", "its volume Dice is undefined and it is left out of the mean")
    if sizes and equal.any():
        missing = " and ".join(np.array(["T1", "T1 with contrast"])[equal])
        report.odd(f"{folder}: FLAIR stands in for {missing}", "train with the missing-sequence augmentation")


def _check_mask(report: Report, path: Path, mask: np.ndarray) -> bool:
    values = np.unique(mask)
    if np.count_nonzero(values) > 1:
        shown = ", ".join(map(str, values[:6])) + (", …" if len(values) > 6 else "")
        report.error(f"{path} holds the values {shown}", "store masks as 0 and 255, resized without interpolation")
    return bool(values.any())


def _check_duplicates(report: Report) -> None:
    shared = collections.defaultdict(list)
    for places in report.digests.values():
        (first, path), *others = places
        for patient, other in others:
            shared[first, patient].append((path, other))
    for (first, second), paths in shared.items():
        path, other = paths[0]
        what = f"{path} and {other} hold the same pixels ({len(paths)} such slices of {first} and {second})"
        if first == second:
            report.odd(what, "remove one of them unless the scan is like that")
        else:
            report.error(what, "keep one of the two patients, or one trains and the other tests")
