"""Detection of file formats without the libraries that read them."""

import os
from pathlib import Path


def is_nifti(path: Path) -> bool:
    """Whether the file name ends in .nii or .nii.gz."""
    return path.name.lower().endswith((".nii", ".nii.gz")) and _visible_file(path)


def is_dicom(path: Path) -> bool:
    """Whether the file name ends in .dcm or the preamble is followed by "DICM". A DICOMDIR is excluded."""
    if path.name == "DICOMDIR" or not _visible_file(path):
        return False
    with path.open("rb") as file:
        return path.suffix.lower() == ".dcm" or file.read(132)[128:] == b"DICM"


def folder_name(folder: Path) -> str:
    """Return the folder's own name, also if the path is `.` or `..`. The root folder is named "scan"."""
    return os.path.basename(os.path.abspath(folder)) or "scan"


def _visible_file(path: Path) -> bool:
    return path.is_file() and not path.name.startswith(".")
