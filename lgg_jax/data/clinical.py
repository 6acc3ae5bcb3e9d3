"""The clinical table of a kaggle_3m folder.

    table = read_clinical("kaggle_3m")
    table["TCGA_CS_4941"]["grade"]      # 2.0, 3.0, or None where the cell is empty
"""

import math
import re
from pathlib import Path

import pandas as pd

from lgg_jax.errors import UserError

# Our names, and the columns of data.csv that hold them.
COLUMNS = {
    "grade": "neoplasm_histologic_grade",
    "age": "age_at_initial_pathologic",
    "gender": "gender",
    "laterality": "laterality",
    "tumor_location": "tumor_location",
    "histological_type": "histological_type",
    "race": "race",
    "ethnicity": "ethnicity",
    "death": "death01",
}
FIELDS = tuple(COLUMNS)

# The file does not say what its codes mean. 1 = grade II and 2 = grade III is the usual reading, and the only one
# decoded: the codes of the other categories stay as they are.
GRADES = {1.0: 2.0, 2.0: 3.0}


def institution(patient_id: str) -> str:
    """The tissue source site in a TCGA barcode: "CS" of TCGA_CS_4941; "unknown" of any other name."""
    match = re.match(r"TCGA[_-]([A-Z0-9]{2})[_-]", patient_id)
    return match[1] if match else "unknown"


def read_clinical(data_dir) -> dict[str, dict[str, float | None]]:
    """Clinical values by patient id, from data.csv in the folder that holds the patient folders.

    Returns:
      {patient: {field: value}} for the fields of FIELDS, None where the cell is empty; age in years, grade 2.0 or 3.0.
      Empty when there is no data.csv.

    Raises:
      UserError: the table has no Patient column, names a patient twice or holds something that is no number.
    """
    path = Path(data_dir) / "data.csv"
    if not path.exists():
        return {}
    table = _read_table(path)
    clinical = {}
    for row, record in enumerate(table.to_dict("records"), start=2):  # as an editor counts: line 1 is the header
        patient = record["Patient"].strip()
        if not patient or patient in clinical:
            what = f"names patient {patient} a second time" if patient else "has no patient"
            raise UserError(f"{path} row {row} {what}", "leave one row per patient")
        clinical[patient] = {field: _value(record.get(COLUMNS[field], ""), field, path, row) for field in FIELDS}
    return clinical


def _read_table(path: Path) -> pd.DataFrame:
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig", skip_blank_lines=False)
    except (ValueError, OSError) as error:  # pandas' parser errors and UnicodeDecodeError are ValueErrors
        wrong = f"{path} cannot be read as a table ({str(error).strip()})"
        raise UserError(wrong, "restore it from the data set") from error
    if "Patient" not in table:
        raise UserError(f"{path} has no column Patient", "restore it from the data set")
    return table.fillna("")  # cells that a short row lacks


def _value(cell: str, field: str, path: Path, row: int) -> float | None:
    if cell.strip().lower() in ("", "na", "nan"):
        return None
    try:
        number = float(cell)
    except ValueError:
        number = math.nan
    if not math.isfinite(number) or (field == "grade" and number not in GRADES):
        expected = "1 or 2" if field == "grade" else "a number"
        raise UserError(f"{path} row {row}: {COLUMNS[field]} is '{cell}', not {expected}", "correct or empty the cell")
    return GRADES[number] if field == "grade" else number
