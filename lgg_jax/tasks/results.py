"""Results of an evaluation, and the table columns that all tasks share.

    metrics, tables, draw = task.evaluate(predict, variables, cases, chosen, preparation)
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from lgg_jax.data import clinical
from lgg_jax.data.volume import Volume


class Results(NamedTuple):
    """The scores of an evaluation.

    Attributes:
      metrics: the body of metrics.json.
      tables: {file name without .csv: table with one row per patient or slice}; "cases" is always present.
      draw: writes the figures into a folder.
    """

    metrics: dict
    tables: dict[str, pd.DataFrame]
    draw: Callable[[Path], None]


def patient_columns(scan: Volume) -> dict:
    """The first columns of cases.csv: patient, institution and grade."""
    grade = scan.clinical.get("grade")
    return {
        "patient": scan.patient,
        "institution": clinical.institution(scan.patient),
        "grade": None if grade is None else int(grade),
    }


def read_tables(folders: list[Path], name: str) -> pd.DataFrame:
    """The rows of <name>.csv in all folders; patient names are read as text, even if they are numbers."""
    tables = [pd.read_csv(folder / f"{name}.csv", dtype={"patient": str}) for folder in folders]
    return pd.concat(tables, ignore_index=True)
