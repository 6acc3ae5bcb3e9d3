"""The verb `explore`: its page compared with the files of the data set, and each augmentation alone."""

import base64
import re

import numpy as np
import pandas as pd
import pytest
from absl import flags
from conftest import write_patient
from head_volume import head_volume
from page_parser import in_browser
from PIL import Image

from configs import default
from lgg_jax import explore
from lgg_jax.data import survey
from lgg_jax.errors import UserError
from lgg_jax.figures import augmentation
from lgg_jax.figures.explore import whole_bins
from lgg_jax.pages import explore as explore_page

AUGMENT = default.get_config().augment


def run(data_dir, output) -> int:
    values = flags.FlagValues()
    explore.define_flags(values)
    values(["explore", f"--data_dir={data_dir}", f"--output={output}"])
    return explore.main(values)


@pytest.fixture(scope="module")
def explored(small_phantoms, tmp_path_factory):
    """The output folder of the phantoms, and the table of patients."""
    folder = tmp_path_factory.mktemp("explored")
    _, cases = explore.explore(small_phantoms, folder)
    return folder, cases.set_index("patient")


def page_text(folder) -> str:
    return (folder / "explore.html").read_text(encoding="utf-8")


def test_counts_agree_with_the_files(explored, small_phantoms):
    _, cases = explored
    for folder in small_phantoms.glob("TCGA*"):
        masks = np.stack([np.asarray(Image.open(path)) > 0 for path in folder.glob("*_mask.tif")])
        case = cases.loc[folder.name[:12]]
        assert case["slices"] == len(masks) and case["height"] == case["width"] == 64
        assert case["tumour_pixels"] == masks.sum()
        assert case["tumour_slices"] == masks.any(axis=(1, 2)).sum()
        assert case["institution"] == folder.name[5:7]
    assert len(cases) == 12


def test_clinical_values_agree_with_the_table(explored, small_phantoms):
    _, cases = explored
    written = pd.read_csv(small_phantoms / "data.csv", index_col="Patient").loc[cases.index]
    pd.testing.assert_series_equal(cases["age"], written["age_at_initial_pathologic"], check_names=False)
    pd.testing.assert_series_equal(cases["grade"], written["neoplasm_histologic_grade"] + 1, check_names=False)


def test_missing_sequences(explored):
    """In the phantoms, the sixth patient has no T1, the ninth no post-contrast T1, and the twelfth neither."""
    folder, cases = explored
    missing = {int(patient[-4:]): names for patient, names in cases["missing"].items() if names}
    assert missing == {6: ("pre-contrast",), 9: ("post-contrast",), 12: ("pre-contrast", "post-contrast")}
    assert "the missing sequences of 3 patients of 12 (post-contrast 2, pre-contrast 2)" in page_text(folder)


def test_the_page_states_the_counts(explored):
    folder, cases = explored
    text = page_text(folder)
    assert f"<dt>slices</dt><dd>{cases['slices'].sum():,}</dd>" in text
    assert f"Slices per patient: median {cases['slices'].median():.0f}, " in text
    assert f"<dd>{(cases['grade'] == 2).sum()} / {(cases['grade'] == 3).sum()}</dd>" in text
    assert "No clinical value is known for 1 patient: TCGA_CS_0004." in text
    left = (cases["column"] < 0.5).sum()
    assert f"{left} in the left half of the picture, {12 - left} in the right half" in text
    assert "64 × 64 (12 patients)" in text


def test_every_figure_is_a_file_and_is_on_the_page(explored):
    folder, _ = explored
    files = sorted(path.read_bytes() for path in (folder / "figures").iterdir())
    shown = [base64.b64decode(data) for data in re.findall(r'src="data:image/png;base64,([^"]+)"', page_text(folder))]
    assert sorted(shown) == files and len(files) == 16
    assert all(data.startswith(b"\x89PNG") for data in files)


def test_the_page_in_a_browser(explored, tmp_path):
    """No script error, and a click sorts the table of all patients by tumour pixels."""
    folder, cases = explored
    found = in_browser(page_text(folder), """
      const tables = document.querySelectorAll("table"), table = tables[tables.length - 1];
      const heads = [...table.tHead.rows[0].cells], head = heads.find(cell => cell.textContent === "tumour pixels");
      head.querySelector("button").click();
      return {order: [...table.tBodies[0].rows].map(row => row.cells[0].textContent)};
    """, tmp_path)  # fmt: skip
    assert found["order"] == list(cases["tumour_pixels"].sort_values(kind="stable").index)


def test_grade_table_by_hand():
    grades = pd.Series(["II", "III", "III", "II", "III"])
    text = explore_page.grade_table(grades, pd.Series(["CS", "CS", "DU", "CS", "DU"]), "institution")
    rows = [re.findall("<td[^>]*>([^<]*)</td>", row) for row in re.findall("<tr>(.*?)</tr>", text)[1:]]
    assert rows == [["CS", "2", "1", "3", "33"], ["DU", "0", "2", "2", "100"]]


def test_unusual_patients_and_no_clinical_table(tiny, tmp_path, capsys):
    """Two ordinary patients, one without tumour and one with black images."""
    (tiny / "data.csv").unlink()
    for name, black in (("TCGA_CS_0003_19990101", "*_mask.tif"), ("TCGA_CS_0004_19990101", "*[0-9].tif")):
        write_patient(tiny / name, 3)
        for path in (tiny / name).glob(black):
            with Image.open(path) as tiff:
                pixels = np.zeros_like(tiff)
            Image.fromarray(pixels).save(path)
    assert run(tiny, tmp_path / "out") == 0
    assert capsys.readouterr().out == f"4 patients, 12 slices, 3 with tumour; see {tmp_path}/out/explore.html\n"
    text = page_text(tmp_path / "out")
    assert "No clinical value is known" in text and "No grade is known." in text
    assert not (tmp_path / "out" / "figures" / "grade.png").exists()
    assert "exclude 2 patients without tumour in any slice or without a visible head" in text


def test_one_grade_only(tmp_path):
    found = survey.survey([head_volume("TCGA_CS_1", left=20)])
    text = "".join(explore_page.grade_comparisons(found.cases, tmp_path))
    assert "The grade of 1 patient is known" in text and ">100</td>" in text


def test_errors_are_one_line(tiny, tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        explore.explore(tmp_path / "nowhere", tmp_path / "out")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write to"):
        explore.explore(tiny, tmp_path / "file")


@pytest.mark.parametrize("values", [[3, 37], [5, 5], [0, 1, 2]])
def test_bins_contain_equally_many_integers(values):
    edges = whole_bins(values)
    assert edges[0] < min(values) and max(values) < edges[-1] and len(edges) <= 14
    assert len(set(np.diff(edges))) == 1 and float(edges[1] - edges[0]).is_integer()


def test_only_one_augmentation_is_enabled():
    for name in augmentation.OFF:
        alone = augmentation.enable_only(AUGMENT, name)
        on = {field for field, off in augmentation.OFF.items() if alone[field] != off}
        assert on == {name}
    strengths = {"elastic_share", "bias_field_deviation"}
    assert set(augmentation.OFF) | strengths == set(AUGMENT)  # every augmentation is in the figure


def test_strongest_of_several_samples():
    rng = np.random.default_rng(0)
    image, mask = rng.normal(size=(32, 32, 3)).astype(np.float32), np.eye(32, dtype=np.float32)
    flipped, flipped_mask = augmentation.strongest(image, mask, AUGMENT, "flip_horizontal")
    np.testing.assert_allclose(flipped, image[:, ::-1], atol=1e-4)
    np.testing.assert_allclose(flipped_mask, mask[:, ::-1], atol=1e-4)
    missing, _ = augmentation.strongest(image, mask, AUGMENT, "missing_sequence")
    np.testing.assert_array_equal(missing, image[..., [1, 1, 1]])
    brighter, _ = augmentation.strongest(image, mask, AUGMENT, "brightness")
    shifts = (brighter - image).mean(axis=(0, 1))
    np.testing.assert_allclose(brighter - image, np.broadcast_to(shifts, image.shape), atol=1e-4)
    assert np.abs(shifts).mean() > 0.1


def test_titles_state_the_range():
    assert augmentation.title("rotation_degrees", AUGMENT) == "rotation, ±15°"
    assert augmentation.title("crop_scale", AUGMENT) == "random crop, 0.8 to 1.1"
