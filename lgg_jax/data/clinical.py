"""The clinical table of a kaggle_3m folder.

    table = read_clinical("kaggle_3m")
    table["TCGA_CS_4941"]["grade"]      # 2.0, 3.0, or None where the cell is empty
"""

import re
from pathlib import Path

from lgg_jax.data.files import number, patient_rows
from lgg_jax.errors import UserError

# Field names of this project, and the columns of data.csv that hold their values.
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

# The data set does not document its codes. 1 = grade II and 2 = grade III is the usual reading. The codes of the other
# categories are not decoded.
GRADES = {1.0: 2.0, 2.0: 3.0}


def institution(patient_id: str) -> str:
    """The tissue source site of a TCGA barcode, such as "CS" for TCGA_CS_4941; "unknown" for any other name."""
    match = re.match(r"TCGA[_-]([A-Z0-9]{2})[_-]", patient_id)
    return match[1] if match else "unknown"


def read_clinical(data_dir) -> dict[str, dict[str, float | None]]:
    """Clinical values by patient, from data.csv in `data_dir`, the folder of the patient folders.

    Returns:
      {patient: {field: value}} for FIELDS, None for an empty cell; age in years, grade 2.0 or 3.0. Empty if there is no
      data.csv.

    Raises:
      UserError: the table has no Patient column, has two rows for one patient, or has a cell that is not a number.
    """
    path = Path(data_dir) / "data.csv"
    if not path.exists():
        return {}
    return {
        patient: {field: _value(record, field, place) for field in FIELDS}
        for patient, record, place in patient_rows(path, "Patient")
    }


def _value(record: dict[str, str], field: str, place: str) -> float | None:
    value = number(record, COLUMNS[field], place)
    if field != "grade" or value is None:
        return value
    if value not in GRADES:
        cell = record[COLUMNS[field]]
        raise UserError(f"{place}: {COLUMNS[field]} is '{cell}', not 1 or 2", "correct or empty the cell")
    return GRADES[value]
