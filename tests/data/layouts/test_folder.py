"""Plain folder layout: image and mask formats, patients from cases.csv, and refused data."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import smoke_words
from PIL import Image

from lgg_jax import check
from lgg_jax.data import dataset
from lgg_jax.data.clinical import FIELDS
from lgg_jax.data.layouts import folder
from lgg_jax.errors import UserError

SIZE = (12, 9)  # rows, columns


def random_image(seed: int, size=SIZE, channels: int = 3) -> np.ndarray:
    shape = (*size, 3) if channels == 3 else size
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def tumour(size=SIZE) -> np.ndarray:
    """A tumour mask in one corner: (rows, columns) bool."""
    mask = np.zeros(size, bool)
    mask[1:4, size[1] - 4 : size[1] - 1] = True
    return mask


def save(path: Path, pixels: np.ndarray, **options) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)


def labels(size=SIZE) -> np.ndarray:
    return tumour(size).astype(np.uint8) * 255


@pytest.fixture
def mine(tmp_path) -> Path:
    """Three slices of patient `a`, whose plain and natural order differ, and one of `b`. Tests may damage the files."""
    root = tmp_path / "mine"
    for seed, name in enumerate(("a_2", "a_10", "a_1")):
        save(root / f"images/{name}.png", random_image(seed))
        save(root / f"masks/{name}.png", labels() * (name == "a_10"))
    save(root / "images/b.tif", random_image(3, (7, 8), channels=1))
    save(root / "masks/b.png", labels((7, 8)))
    (root / "cases.csv").write_text("file,patient,grade,age\na_1,a,2,40\na_2,a,,40\na_10.png,a,2,\nb,b,3,\n")
    return root


def load(root: Path) -> list:
    return list(dataset.layout(root).load_volumes(root, root.parent / "cache"))


def test_slices_of_a_patient_in_natural_order(mine):
    a, b = load(mine)
    assert (a.patient, b.patient) == ("a", "b") and list(a.slice_index) == [1, 2, 3]
    np.testing.assert_array_equal(a.image, np.stack([random_image(seed) for seed in (2, 0, 1)]))
    np.testing.assert_array_equal(a.mask, np.stack([tumour() & False, tumour() & False, tumour()]))
    np.testing.assert_array_equal(b.image[0], np.repeat(random_image(3, (7, 8), 1)[..., None], 3, axis=-1))
    np.testing.assert_array_equal(b.mask[0], tumour((7, 8)))


def test_patients_and_clinical_values(mine):
    table = folder.list_patients(mine)
    assert list(table["patient"]) == ["a", "b"] and list(table["grade"]) == [2.0, 3.0]
    assert load(mine)[0].clinical == dict.fromkeys(FIELDS) | {"grade": 2.0, "age": 40.0}


def test_without_patients_each_file_counts_as_one_with_a_warning(mine, caplog):
    (mine / "cases.csv").write_text("file,grade\na_10,2\n")
    assert [volume.patient for volume in load(mine)] == ["a_1", "a_2", "a_10", "b"]
    assert "each file counts as one patient, so splits may leak" in caplog.text
    assert list(folder.list_patients(mine)["grade"].dropna()) == [2.0]
    (mine / "cases.csv").unlink()
    assert len(folder.list_patients(mine)) == 4
    assert any("splits may leak" in line for _, line in check.check(mine).findings)


def test_without_masks(mine):
    for path in (mine / "masks").iterdir():
        path.unlink()
    with pytest.raises(UserError, match=r"a_1\.png has no mask"):
        load(mine)
    (mine / "masks").rmdir()
    assert all(volume.mask is None and volume.image.any() for volume in load(mine))
    line = f"{mine} has no folder masks/; add the masks: train and evaluate need them"
    assert ("odd", line) in check.check(mine).findings


def test_a_column_name_in_other_case_is_reported(mine):
    """The column is ignored, so all grades would be missing."""
    cases(mine, "file,patient,Grade,site\na_1,a,2,x\na_2,a,2,x\na_10,a,2,x\nb,b,3,x\n")
    lines = [line for _, line in check.check(mine).findings if "cases.csv" in line]
    assert lines == [f"column Grade is ignored ({mine}/cases.csv); rename it to grade"]


def test_natural_order():
    names = ["s", "s1", "s2", "S10", "s10b", "t1"]
    assert sorted(reversed(names), key=folder.natural_key) == names


@pytest.mark.parametrize("kind", ["L", "RGB", "I;16", "F", "1", "P"])
def test_images_of_every_pixel_type(tmp_path, kind):
    grey = random_image(0, channels=1)
    pixels = {"RGB": random_image(0), "I;16": grey.astype(np.uint16) * 200, "F": grey / np.float32(7), "1": grey > 99}
    expected = pixels.get(kind, grey)
    if kind == "P":
        Image.fromarray(grey).convert("P").save(tmp_path / "p.png")
    else:
        save(tmp_path / ("p.tif" if kind == "F" else "p.png"), expected)
    (path,) = tmp_path.iterdir()
    read = folder.read_pixels(path)
    assert read.shape == (*SIZE, 3) and read.dtype == np.float32
    np.testing.assert_array_equal(read, expected if kind == "RGB" else np.repeat(expected[..., None], 3, axis=-1))


@pytest.mark.parametrize("kind", ["0 and 1", "labels", "bool", "RGB", "RGBA", "palette", "JPEG"])
def test_masks_of_every_pixel_type(tmp_path, kind):
    mask, path = tumour((40, 30)), tmp_path / ("mask.jpg" if kind == "JPEG" else "mask.png")
    red = mask[..., None] * np.array([255, 0, 0], np.uint8)
    pixels = {
        "0 and 1": mask.astype(np.uint8), "labels": mask * np.tile([1, 4], 15).astype(np.uint8), "bool": mask,
        "RGB": red, "RGBA": np.dstack([red, np.full(mask.shape, 255, np.uint8)]),
        "JPEG": mask.astype(np.uint8) * 255,
    }  # fmt: skip
    if kind == "palette":
        image = Image.fromarray(mask.astype(np.uint8)).convert("P")
        image.putpalette([0, 0, 0, 200, 0, 0])
        image.save(path)
    else:
        save(path, pixels[kind], **{"quality": 60} if kind == "JPEG" else {})
    if kind == "JPEG":
        assert ((folder.read_labels(path) > 0) != mask).any()  # the reason for the threshold at half of the maximum
    np.testing.assert_array_equal(folder.read_mask(path), mask)


def cases(root: Path, text: str) -> None:
    (root / "cases.csv").write_text(text)


def several_pages(root: Path) -> None:
    pages = [Image.fromarray(random_image(seed)) for seed in (0, 1)]
    pages[0].save(root / "images/b.tif", save_all=True, append_images=pages[1:])


def another_size(root: Path) -> None:
    for kind in ("images", "masks"):
        save(root / f"{kind}/a_2.png", labels((9, 12)))


B, NAN = "images/b.tif", np.full((7, 8), np.nan, np.float32)
CONTRADICTION = "file,patient,grade\na_1,a,2\na_2,a,3\na_10,a,2\nb,b,2\n"
DAMAGED = {
    "image without mask": (lambda root: (root / "masks/a_2.png").unlink(), r"images/a_2\.png has no mask"),
    "mask without image": (lambda root: (root / "images/a_2.png").unlink(), r"masks/a_2\.png has no image"),
    "mask of another size": (
        lambda root: save(root / "masks/b.png", labels((8, 7))), r"b\.png has 8×7 pixels, but .*b\.tif has 7×8",
    ),
    "two sizes": (
        another_size,
        r"a_2\.png has (9×12 .*a_1\.png has 12×9|shape \(9, 12\), the slices before it \(12, 9\))",
    ),
    "same stem": (
        lambda root: save(root / "images/b.jpg", random_image(0)), r"images/b\.tif has the same name as b\.jpg",
    ),
    "four channels": (lambda root: save(root / B, np.zeros((7, 8, 4), np.uint8)), r"b\.tif has 4 channels"),
    "not an image": (lambda root: (root / "images/a_1.png").write_bytes(b"text"), r"a_1\.png cannot be read as PNG or"),
    "several pages": (several_pages, r"images/b\.tif holds 2 pictures"),
    "NaN": (lambda root: save(root / B, NAN), r"b\.tif contains values that are not finite"),
    "no column": (lambda root: cases(root, "name,patient\na_1,a\n"), r"has no column file; it has name, patient"),
    "no row": (lambda root: cases(root, "file,patient\na_1,a\na_2,a\na_10,a\n"), r"cases\.csv has no row for b"),
    "two rows": (lambda root: cases(root, "file\na_1\na_1.png\n"), r"cases\.csv row 3 names file 'a_1' a second time"),
    "empty patient": (lambda root: cases(root, "file,patient\na_1,a\na_2,\n"), r"cases\.csv row 3 has no patient"),
    "gender in words": (lambda root: cases(root, "file,gender\na_1,male\n"), r"row 2: gender is 'male', not a number"),
    "contradiction": (lambda root: cases(root, CONTRADICTION), r"values of grade for patient a: 2\.0 and 3\.0"),
    "no files": (lambda root: [path.unlink() for path in root.glob("*/*.*")], "no image files in"),
}


@pytest.mark.parametrize("defect", DAMAGED)
def test_the_message_names_the_damaged_file(mine, defect):
    damage, message = DAMAGED[defect]
    damage(mine)
    with pytest.raises(UserError, match=message) as caught:
        load(mine)
    assert "\n" not in str(caught.value)
    (error,) = (line for severity, line in check.check(mine).findings if severity == "error")
    assert re.search(message, error)


def test_check(mine):
    report = check.check(mine)
    assert (report.patients, report.slices, report.with_tumour, report.count("error")) == (2, 4, 2, 0)
    assert [line for _, line in report.findings] == [
        f"FLAIR replaces the missing T1 and T1 with contrast (1 patients of {mine}); "
        "for training, keep config.augment.missing_sequence above 0"
    ]
    save(mine / "images/b.tif", random_image(0))  # the pixels of a_2
    save(mine / "masks/b.png", tumour() * np.tile([1, 2, 4], 3).astype(np.uint8))
    save(mine / "masks/a_10.png", labels() * 0)
    with open(mine / "cases.csv", "a") as table:
        table.write("c,c,2,\n")
    findings = check.check(mine).findings
    assert [severity for severity, _ in findings] == ["odd", "odd", "odd", "error"]
    for message, (_, line) in zip(
        ("no image for c", r"no tumour in any mask \(1 patients of .*: a\)",
         r"1 masks contain more than one value above 0: .*b\.png \(0, 1, 2, 4\)",
         r"a_2\.png and .*b\.tif have the same pixels"), findings, strict=True,
    ):  # fmt: skip
        assert re.search(message, line)


def test_the_layout_follows_from_the_files(mine, tiny, tmp_path):
    assert dataset.layout(mine) is folder
    assert dataset.layout(tiny).__name__ == "lgg_jax.data.layouts.kaggle"
    (tmp_path / "empty").mkdir()
    expected = r"no folder images/; pass a folder with .*_mask\.tif.*_flair\.nii\.gz.*images/ and masks/"
    with pytest.raises(UserError, match=expected):
        dataset.layout(tmp_path / "empty")
    with pytest.raises(UserError, match="no such folder"):
        dataset.layout(tmp_path / "nowhere")


def test_train_and_evaluate(tmp_path, lgg, small_phantoms):
    rng = np.random.default_rng(0)
    y, x = np.indices((40, 36))
    for index in range(16):
        mask = (y - rng.integers(12, 28)) ** 2 + (x - rng.integers(12, 24)) ** 2 < 16
        head = ((y - 20) / 17) ** 2 + ((x - 18) / 15) ** 2 < 1
        pixels = head * 90 + mask * 100 + rng.integers(0, 20, y.shape)
        save(tmp_path / f"data/images/{index}.png", pixels.astype(np.uint8))
        save(tmp_path / f"data/masks/{index}.png", mask.astype(np.uint8) * 255)
    words = smoke_words(tmp_path / "data", tmp_path / "run", train__num_steps=10)
    other = ["evaluate", f"--workdir={tmp_path}/run", f"--data_dir={small_phantoms}", "--split=all", "--name=other"]
    for command in (words, ["evaluate", f"--workdir={tmp_path}/run"], other):
        done = lgg(*command)
        assert done.code == 0, done.err
    metrics = json.loads((tmp_path / "run/eval/test/metrics.json").read_text())
    cases = pd.read_csv(tmp_path / "run/eval/test/cases.csv")
    assert metrics["volume_dice"]["n"] == len(cases) == 4 and (cases["slices"] == 1).all()
    assert set(cases["missing_sequences"]) == {"pre+post"} and cases["grade"].isna().all()
    assert len(pd.read_csv(tmp_path / "run/eval/other/cases.csv")) == 12
