"""Integrity check of the kaggle_3m layout: each kind of damage gives one line."""

import shutil
import struct

import numpy as np
import pytest
from absl import flags
from conftest import write_patient
from PIL import Image

from lgg_jax import check
from lgg_jax.errors import UserError

FIRST, SECOND = "TCGA_CS_0001_19990101", "TCGA_DU_0002_20000202"


def run(data_dir):
    flag_values = flags.FlagValues()
    check.define_flags(flag_values)
    flag_values(["check", f"--data_dir={data_dir}"])
    return check.main(flag_values)


def image(root, index=2, patient=FIRST):
    return root / patient / f"{patient}_{index}.tif"


def mask(root, index=2, patient=FIRST):
    return root / patient / f"{patient}_{index}_mask.tif"


def change_pixels(change, *paths):
    for path in paths:
        with Image.open(path) as file:
            pixels = np.array(file)
        change(pixels)
        Image.fromarray(pixels).save(path)


def replace_channels(root, channels):
    def replace(pixels):
        pixels[..., channels] = pixels[..., 1:2]

    change_pixels(replace, image(root, 1), image(root, 2), image(root, 3))


def rename_slice(root, old, new):
    image(root, old).rename(image(root, new))
    mask(root, old).rename(mask(root, new))


def resize_slice(root):
    for path in (image(root, 3), mask(root, 3)):
        with Image.open(path) as file:
            file.resize((9, 9), Image.Resampling.NEAREST).save(path)


def append_row(root, row):
    with open(root / "data.csv", "a") as table:
        table.write(row + "\n")


def without_row(root):
    lines = (root / "data.csv").read_text().splitlines()
    (root / "data.csv").write_text("\n".join(lines[:-1]) + "\n")


def copy_patient(root, name):
    for path in (root / FIRST).iterdir():
        (root / name).mkdir(exist_ok=True)
        shutil.copy(path, root / name / path.name.replace(FIRST, name))
    append_row(root, f"{name[:12]},1,40")


ERRORS = {
    "image without mask": (lambda root: mask(root).unlink(), "_2.tif has no mask"),
    "mask without image": (lambda root: image(root).unlink(), "_2_mask.tif has no image"),
    "truncated": (
        lambda root: image(root).write_bytes(image(root).read_bytes()[:-50]),
        "_2.tif cannot be read as TIFF",
    ),
    "not a TIFF": (lambda root: mask(root).write_bytes(b"text"), "_2_mask.tif cannot be read as TIFF"),
    "one channel": (
        lambda root: Image.new("L", (8, 8)).save(image(root)),
        "_2.tif has dtype uint8 and shape (8, 8)",
    ),
    "float image": (lambda root: Image.new("F", (8, 8)).save(image(root)), "_2.tif has dtype float32"),
    "mask of another size": (
        lambda root: Image.new("L", (8, 9)).save(mask(root)),
        "_2_mask.tif has dtype uint8 and shape (9, 8)",
    ),
    "two sizes in a patient": (resize_slice, "_3.tif has shape (9, 9), the slices before it (8, 8)"),
    "grey levels in a mask": (
        lambda root: change_pixels(lambda pixels: pixels.__setitem__((0, slice(2)), (1, 7)), mask(root)),
        "_2_mask.tif contains the values 0, 1, 7, 255",
    ),
    "no number": (lambda root: image(root).rename(root / FIRST / "copy.tif"), "copy.tif has no slice number"),
    "date as number": (
        lambda root: image(root).rename(root / FIRST / "a_20200101.tif"),
        "has slice number 20200101 in its name",
    ),
    "same number": (lambda root: shutil.copy(image(root), image(root, "02")), "has the same slice number as"),
    "two dates": (lambda root: write_patient(root / "TCGA_CS_0001_20010101", 7), "TCGA_CS_0001 has 2 folders"),
    "same scan in two patients": (
        lambda root: copy_patient(root, "TCGA_FG_0003_19990101"),
        "have the same pixels (identical slices in TCGA_CS_0001 and TCGA_FG_0003: 3)",
    ),
    "same slice in two patients": (
        lambda root: shutil.copy(image(root, 1), image(root, 3, SECOND)),
        "have the same pixels (identical slices in TCGA_CS_0001 and TCGA_DU_0002: 1)",
    ),
    "malformed table": (
        lambda root: append_row(root, "TCGA_EZ_0009,7,40"),
        "data.csv row 4: neoplasm_histologic_grade is '7'",
    ),
}
ODD = {
    "two slices missing": (lambda root: rename_slice(root, 2, 5), "slices missing between 1 and 5: 2, 4"),
    "many slices missing": (lambda root: rename_slice(root, 2, 999), "between 1 and 999: 2, 4, 5, 6, 7, 8, …"),
    "row without folder": (lambda root: append_row(root, "TCGA_EZ_0009,1,40"), "TCGA_EZ_0009 has a row but no folder"),
    "folder without row": (without_row, "TCGA_DU_0002 has no row"),
    "row without values": (
        lambda root: (without_row(root), append_row(root, "TCGA_DU_0002,,")),
        "TCGA_DU_0002 has no clinical value",
    ),
    "no table": (lambda root: (root / "data.csv").unlink(), "data.csv is missing"),
    "no T1": (lambda root: replace_channels(root, [0]), "FLAIR replaces the missing T1 ("),
    "no T1 with contrast": (lambda root: replace_channels(root, [2]), "replaces the missing T1 with contrast ("),
    "FLAIR only": (lambda root: replace_channels(root, [0, 2]), "replaces the missing T1 and T1 with contrast ("),
    "no tumour": (
        lambda root: change_pixels(lambda pixels: pixels.fill(0), mask(root)),
        "no tumour in any mask",
    ),
    "folder without masks": (
        lambda root: ((root / "other").mkdir(), shutil.copy(image(root), root / "other")),
        "other has images but no masks and is ignored",
    ),
    "repeated slice in a scan": (lambda root: shutil.copy(image(root, 1), image(root, 3)), "have the same pixels"),
    "zip with two copies": (
        lambda root: shutil.copytree(root, root / "lgg-mri-segmentation" / "kaggle_3m"),
        "lgg-mri-segmentation/kaggle_3m is a second copy of the data",
    ),
}


def test_undamaged(tiny, capsys):
    assert run(tiny) == 0
    assert capsys.readouterr().out == "2 patients, 6 slices, 2 with tumour; 0 errors, 0 odd\n"


@pytest.mark.parametrize("defect", ERRORS)
def test_errors(tiny, capsys, defect):
    damage, message = ERRORS[defect]
    damage(tiny)
    assert run(tiny) == 1
    *lines, summary = capsys.readouterr().out.splitlines()
    (line,) = (line for line in lines if line.startswith("error  "))
    assert message in line and "; " in line
    assert "; 1 errors" in summary


@pytest.mark.parametrize("defect", ODD)
def test_odd(tiny, capsys, defect):
    damage, message = ODD[defect]
    damage(tiny)
    assert run(tiny) == 0
    line, summary = capsys.readouterr().out.splitlines()
    assert line.startswith("odd    ") and message in line and "; " in line
    assert summary.endswith("0 errors, 1 odd")


def test_one_run_reports_all_defects(tiny, capsys):
    mask(tiny, 1).unlink()
    image(tiny, 3).write_bytes(b"")
    change_pixels(lambda pixels: pixels.__setitem__((0, 0), 7), mask(tiny, 2, SECOND))
    append_row(tiny, "TCGA_EZ_0009,1,40")
    assert run(tiny) == 1
    assert capsys.readouterr().out.splitlines()[-1] == "2 patients, 6 slices, 2 with tumour; 3 errors, 1 odd"


def test_blank_slices_are_not_duplicates(tiny, capsys):
    change_pixels(lambda pixels: pixels.fill(0), image(tiny, 1), image(tiny, 1, SECOND))
    assert run(tiny) == 0


def test_a_header_with_a_huge_image_size(tiny, capsys):
    width = struct.pack("<HHII", 256, 4, 1, 2**31 - 1) + struct.pack("<HHII", 257, 4, 1, 2**31 - 1)
    image(tiny).write_bytes(b"II*\0" + struct.pack("<IH", 8, 2) + width + bytes(4))
    assert run(tiny) == 1
    assert "_2.tif" in capsys.readouterr().out


@pytest.mark.parametrize(("folder", "message"), [("nowhere", "no such folder"), (FIRST, "no patient folders")])
def test_no_data(tiny, folder, message):
    with pytest.raises(UserError, match=message):
        run(tiny / folder)


def test_phantoms(phantoms, capsys):
    assert run(phantoms) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("replaces the missing ")[1].split(" (")[0] for line in lines if "replaces" in line] == [
        "T1 and T1 with contrast", "T1 with contrast", "T1",
    ]  # fmt: skip
    assert "TCGA_CS_0004 has no clinical value" in lines[0]


def test_real_data(real_data, capsys):
    assert run(real_data) == 0
    assert capsys.readouterr().out.endswith("88 patients, 3129 slices, 1043 with tumour; 0 errors, 9 odd\n")
