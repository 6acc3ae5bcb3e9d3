"""What a file or folder is, told without the libraries that read it."""

import os
from pathlib import Path


def is_nifti(path: Path) -> bool:
    """By its name."""
    return path.name.lower().endswith((".nii", ".nii.gz")) and _visible_file(path)


def is_dicom(path: Path) -> bool:
    """By its name, or by the four letters that stand behind the preamble."""
    if path.name == "DICOMDIR" or not _visible_file(path):
        return False
    with path.open("rb") as file:
        return path.suffix.lower() == ".dcm" or file.read(132)[128:] == b"DICM"


def folder_name(folder: Path) -> str:
    """A name for files even where the folder was given as `.`, `..` or `/`."""
    return os.path.basename(os.path.abspath(folder)) or "scan"


def _visible_file(path: Path) -> bool:
    return path.is_file() and not path.name.startswith(".")
