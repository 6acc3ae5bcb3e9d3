"""The clinical table: values, missing cells, grades, and tables that are refused."""

import pytest

from lgg_jax.data.clinical import COLUMNS, FIELDS, institution, read_clinical
from lgg_jax.errors import UserError

HEADER = "Patient," + ",".join(COLUMNS.values())


def write(folder, *rows):
    (folder / "data.csv").write_text("\n".join((HEADER, *rows)) + "\n")
    return folder


def test_values_and_missing_cells(tmp_path):
    clinical = read_clinical(write(tmp_path, "TCGA_CS_4941,2,67,2,3,2,1,3,2,1", "TCGA_HT_A61B,,,,,,,,,"))
    assert clinical["TCGA_CS_4941"] == {
        "grade": 3.0, "age": 67.0, "gender": 2.0, "laterality": 3.0, "tumor_location": 2.0, "histological_type": 1.0,
        "race": 3.0, "ethnicity": 2.0, "death": 1.0,
    }  # fmt: skip
    assert clinical["TCGA_HT_A61B"] == dict.fromkeys(FIELDS)


def test_grade_codes_one_and_two_are_grades_two_and_three(tmp_path):
    clinical = read_clinical(write(tmp_path, "a,1", "b,2", "c,"))
    assert [clinical[patient]["grade"] for patient in "abc"] == [2.0, 3.0, None]


def test_no_table(tmp_path):
    assert read_clinical(tmp_path) == {}


def test_values_of_absent_columns_are_missing(tmp_path):
    (tmp_path / "data.csv").write_text("Patient,age_at_initial_pathologic\na,40\n")
    assert read_clinical(tmp_path)["a"] == dict.fromkeys(FIELDS) | {"age": 40.0}


def test_spreadsheet_byte_order_mark(tmp_path):
    (tmp_path / "data.csv").write_text(f"{HEADER}\na,1\n", encoding="utf-8-sig")
    assert list(read_clinical(tmp_path)) == ["a"]


def test_an_empty_line_is_no_row(tmp_path):
    assert set(read_clinical(write(tmp_path, "a,1,40", "", "b,1,50", ",,", ""))) == {"a", "b"}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["a,1,40", "b,1,forty"], "row 3: age_at_initial_pathologic is 'forty', not a number"),
        (["a,1,inf"], "row 2: age_at_initial_pathologic is 'inf'"),
        (["a,3,40"], "row 2: neoplasm_histologic_grade is '3', not 1 or 2"),
        (["a,1,40", "a,1,40"], "row 3 names patient a a second time"),
        ([",1,40"], "row 2 has no patient"),
        (["a,1,40", "b" + "," * 20], "cannot be read as a table"),
        (["a,1,40" + "," * 20], "cannot be read as a table"),  # otherwise each cell would move by a column
    ],
)
def test_malformed(tmp_path, rows, message):
    with pytest.raises(UserError, match=r"data\.csv") as caught:
        read_clinical(write(tmp_path, *rows))
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"id,grade\na,1\n", b"", b"\xff\xfe\x00junk"])
def test_files_that_are_not_the_table(tmp_path, content):
    (tmp_path / "data.csv").write_bytes(content)
    with pytest.raises(UserError, match=r"data\.csv"):
        read_clinical(tmp_path)


@pytest.mark.parametrize(
    ("patient", "expected"), [("TCGA_CS_4941", "CS"), ("TCGA-HT-A61B", "HT"), ("patient7", "unknown"), ("", "unknown")]
)
def test_institution(patient, expected):
    assert institution(patient) == expected


def test_real_table(real_data):
    clinical = read_clinical(real_data / "kaggle_3m")
    grades = [values["grade"] for values in clinical.values()]
    assert [grades.count(grade) for grade in (2.0, 3.0, None)] == [41, 46, 1]
    assert clinical["TCGA_HT_A61B"] == dict.fromkeys(FIELDS)
