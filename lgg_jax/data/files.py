"""Readers of image files and CSV tables; a bad file becomes a UserError with its name.

    pixels = np.asarray(read_image(Path("1.png"), ["PNG", "TIFF", "JPEG"]))
    for row, record in read_table(Path("cases.csv"), ["file"]):
        grade = number(record, "grade", f"cases.csv row {row}")
"""

import math
import struct
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

import pandas as pd
from PIL import Image

from lgg_jax.errors import UserError

MAX_SIDE = 4096


def read_image(path: Path, formats: list[str]) -> Image.Image:
    """The decoded image in a file.

    Args:
      path: the file, of at most 4096×4096 pixels.
      formats: the accepted formats, by Pillow's names.

    Raises:
      UserError: the file is truncated, unreadable, too large, or has several pages.
    """
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(path, formats=formats) as image:
            if max(image.size) > MAX_SIDE:
                wrong = f"{path} has {image.width}×{image.height} pixels"
                raise UserError(wrong, f"{MAX_SIDE}×{MAX_SIDE} is the limit")
            if getattr(image, "n_frames", 1) > 1:
                raise UserError(f"{path} holds {image.n_frames} pictures", "save each slice as a file of its own")
            image.load()
            return image
    # Pillow does not convert the errors of its TIFF parser.
    except (OSError, ValueError, TypeError, KeyError, IndexError, SyntaxError, struct.error, OverflowError,
            Image.DecompressionBombError) as error:
        wrong = f"{path} cannot be read as {' or '.join(formats)} ({error})"
        raise UserError(wrong, "restore the file from the data set") from error


def read_table(path: Path, required: Iterable[str] = ()) -> list[tuple[int, dict[str, str]]]:
    """The rows of a CSV file that are not empty, as (row number, {column: text of the cell}); row 1 is the header.

    Raises:
      UserError: the file is not a CSV table in UTF-8, or lacks one of the `required` columns.
    """
    try:
        with warnings.catch_warnings(action="error", category=pd.errors.ParserWarning):
            # Without index_col=False, the cells of a row longer than the header would move by one column.
            table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig", skip_blank_lines=False,
                                index_col=False)  # fmt: skip
    # pandas' parser errors and UnicodeDecodeError are ValueErrors.
    except (ValueError, OSError, pd.errors.ParserWarning) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path} cannot be read as a table ({reason})", "save it as CSV in UTF-8") from error
    for column in required:
        if column not in table:
            raise UserError(f"{path} has no column {column}", f"it has {', '.join(map(str, table))}")
    records = table.fillna("").to_dict("records")  # NaN: the cells that a short row lacks
    rows = ((row, {name: cell.strip() for name, cell in record.items()}) for row, record in enumerate(records, 2))
    return [(row, record) for row, record in rows if any(record.values())]


def patient_rows(path: Path, column: str) -> Iterator[tuple[str, dict[str, str], str]]:
    """The rows of a CSV file with one row per patient, as (patient, {column: text of the cell}, "FILE row NUMBER").

    Raises:
      UserError: the file cannot be read, or a row has no patient or the patient of an earlier row.
    """
    seen = set()
    for row, record in read_table(path, [column]):
        patient, place = record[column], f"{path} row {row}"
        if not patient or patient in seen:
            what = f"names patient {patient} a second time" if patient else "has no patient"
            raise UserError(f"{place} {what}", "keep one row per patient")
        seen.add(patient)
        yield patient, record, place


def number(record: dict[str, str], column: str, place: str) -> float | None:
    """The number in a cell; None if the cell is empty or the column is missing.

    Raises:
      UserError: the cell is not a finite number; the message begins with `place`.
    """
    cell = record.get(column, "")
    if cell.lower() in ("", "na", "nan"):
        return None
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UserError(f"{place}: {column} is '{cell}', not a number", "correct or empty the cell")
    return value
