"""kaggle_3m layout: patients, slices, damaged files, and the cache of prepared data."""

import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds
from conftest import write_patient
from PIL import Image

from configs import default
from lgg_jax.data import dataset
from lgg_jax.data.clinical import FIELDS
from lgg_jax.data.layouts import cache, kaggle
from lgg_jax.errors import UserError

PATIENT = "TCGA_CS_0001_19990101"


def cached(cache):
    """Names in the cache folder. Hidden names are temporary folders of preparations that did not finish."""
    return sorted(path.name for path in cache.iterdir()) if cache.exists() else []


def read(path):
    with Image.open(path) as image:
        return np.asarray(image)


@pytest.mark.parametrize("place", [".", "kaggle_3m", "lgg-mri-segmentation/kaggle_3m"])
def test_root_in_each_place(tiny, tmp_path, place):
    root = (tmp_path / "download" / place).resolve()
    shutil.copytree(tiny, root)
    assert kaggle.find_root(tmp_path / "download").resolve() == root


def test_the_second_copy_in_the_zip_file_is_ignored(tiny, tmp_path, caplog):
    for place in ("kaggle_3m", "lgg-mri-segmentation/kaggle_3m"):
        shutil.copytree(tiny, tmp_path / "zip" / place)
    assert len(kaggle.list_patients(tmp_path / "zip")) == 2
    assert "two copies of the data" in caplog.text
    assert len(list(kaggle.load_volumes(tmp_path / "zip", tmp_path / "cache"))) == 2


@pytest.mark.parametrize(("folder", "message"), [("nowhere", "no such folder"), (".", "no patient folders")])
def test_no_data(tmp_path, folder, message):
    (tmp_path / "empty" / "reports").mkdir(parents=True)
    with pytest.raises(UserError, match=message):
        kaggle.find_root(tmp_path / "empty" / folder)


def test_the_version_of_the_data_follows_the_files(tiny, tmp_path):
    config = default.get_config().data
    config.dir, config.cache_dir = str(tiny), str(tmp_path / "cache")
    before = dataset.version(config)
    assert re.fullmatch(r"lgg_mri 1\.0\.0, 2 patients, 6 slices, fingerprint [0-9a-f]{16}", before)
    assert dataset.version(config) == before
    os.utime(tiny / PATIENT / f"{PATIENT}_2_mask.tif", (0, 0))
    assert dataset.version(config) != before


@pytest.mark.parametrize(
    ("folder", "patient"),
    [("TCGA_CS_4941_19960909", "TCGA_CS_4941"), ("TCGA_CS_4941", "TCGA_CS_4941"), ("case_123", "case_123")],
)
def test_patient_id(folder, patient):
    assert kaggle.patient_id(folder) == patient


def test_list_patients(tiny):
    table = kaggle.list_patients(tiny)
    assert list(table["patient"]) == ["TCGA_CS_0001", "TCGA_DU_0002"]
    assert list(table["folder"]) == [str(tiny / PATIENT), str(tiny / "TCGA_DU_0002_20000202")]
    assert list(table["institution"]) == ["CS", "DU"]
    assert list(table["grade"]) == [2.0, 3.0]
    (tiny / "data.csv").unlink()
    assert kaggle.list_patients(tiny)["grade"].isna().all()


def test_one_patient_with_two_dates_is_refused(tiny):
    write_patient(tiny / "TCGA_CS_0001_20010101", seed=5)
    with pytest.raises(UserError, match="patient TCGA_CS_0001 has 2 folders"):
        kaggle.list_patients(tiny)


def test_slices_in_numeric_order(tmp_path):
    write_patient(tmp_path / "p", seed=0, slices=12)
    assert [pair.index for pair in kaggle.slice_pairs(tmp_path / "p")] == list(range(1, 13))


def truncate(path):
    path.write_bytes(path.read_bytes()[:-20])


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("_2.tif", truncate, "cannot be read as TIFF"),
        ("_2_mask.tif", truncate, "cannot be read as TIFF"),
        ("_2.tif", lambda path: path.write_bytes(b""), "cannot be read as TIFF"),
        ("_2.tif", lambda path: path.write_bytes(b"II*\0" + b"\xff" * 60), "cannot be read as TIFF"),
        ("_2.tif", lambda path: Image.new("RGB", (8, 8)).save(path, "PNG"), "cannot be read as TIFF"),
        ("_2.tif", lambda path: Image.new("RGB", (4097, 1)).save(path), "4097×1 pixels; 4096×4096 is the limit"),
        ("_2.tif", lambda path: Image.new("L", (8, 8)).save(path), r"dtype uint8 and shape \(8, 8\)"),
        ("_2.tif", lambda path: Image.new("F", (8, 8)).save(path), "float32"),
        ("_2_mask.tif", lambda path: Image.new("L", (8, 9)).save(path), r"shape \(9, 8\); save it as .* \(8, 8\)"),
        ("_2_mask.tif", lambda path: Image.new("RGB", (8, 8)).save(path), r"shape \(8, 8, 3\)"),
        ("_2_mask.tif", lambda path: path.unlink(), "has no mask"),
        ("_2.tif", lambda path: path.unlink(), "has no image"),
        ("_02.tif", lambda path: Image.new("RGB", (8, 8)).save(path), "has the same slice number as"),
        ("_a.tif", lambda path: Image.new("RGB", (8, 8)).save(path), "no slice number"),
    ],
)
def test_the_message_names_the_damaged_file_and_the_cache_stays_empty(tiny, tmp_path, name, damage, message):
    damage(tiny / PATIENT / f"{PATIENT}{name}")
    with pytest.raises(UserError, match=message) as caught:
        list(kaggle.load_volumes(tiny, tmp_path / "cache"))
    assert PATIENT in str(caught.value)
    assert "\n" not in str(caught.value)
    assert cached(tmp_path / "cache") == []


def test_slices_of_two_sizes(tiny):
    Image.new("RGB", (9, 9)).save(tiny / PATIENT / f"{PATIENT}_3.tif")
    Image.new("L", (9, 9)).save(tiny / PATIENT / f"{PATIENT}_3_mask.tif")
    with pytest.raises(UserError, match=r"_3\.tif has shape \(9, 9, 3\)"):
        kaggle.read_volume(tiny / PATIENT, {})


def test_volumes_equal_the_pixels_of_the_files(phantoms):
    volumes = list(kaggle.load_volumes(phantoms))
    table = kaggle.list_patients(phantoms)
    assert [volume.patient for volume in volumes] == list(table["patient"])
    for volume, folder in zip(volumes, table["folder"], strict=True):
        pairs = kaggle.slice_pairs(kaggle.Path(folder))
        assert volume.image.dtype == np.uint8 and volume.mask.dtype == bool
        assert list(volume.slice_index) == [pair.index for pair in pairs]
        for pair in pairs[::5]:
            np.testing.assert_array_equal(volume.image[pair.index - 1], read(pair.image))
            np.testing.assert_array_equal(volume.mask[pair.index - 1], read(pair.mask) > 0)


def test_clinical_values_are_stored_and_missing_values_stay_missing(phantoms):
    clinical = kaggle.read_clinical(phantoms)
    assert {volume.patient: volume.clinical for volume in kaggle.load_volumes(phantoms)} == clinical
    assert clinical["TCGA_CS_0004"] == dict.fromkeys(FIELDS)


def test_selected_patients(phantoms):
    chosen = ["TCGA_HT_0002", "TCGA_CS_0008"]
    assert sorted(volume.patient for volume in kaggle.load_volumes(phantoms, patients=chosen)) == sorted(chosen)
    with pytest.raises(UserError, match=r"no such patient in .*: nobody"):
        list(kaggle.load_volumes(phantoms, patients=["nobody"]))


def test_tfds_load(tiny, tmp_path):
    config = tfds.download.DownloadConfig(manual_dir=tiny)
    data, info = tfds.load(
        "lgg_mri", split="all", data_dir=tmp_path / "tfds", with_info=True,
        download_and_prepare_kwargs={"download_config": config},
    )  # fmt: skip
    examples = list(data.as_numpy_iterator())
    assert [example["slice_index"] for example in examples] == [1, 2, 3, 1, 2, 3]
    assert [example["patient"] for example in examples] == [b"TCGA_CS_0001"] * 3 + [b"TCGA_DU_0002"] * 3
    assert examples[3]["institution"] == b"DU" and examples[3]["num_slices"] == 3
    assert (examples[0]["image"].shape, examples[0]["mask"].shape) == ((8, 8, 3), (8, 8, 1))
    assert [int(example["mask"].sum()) for example in examples] == [0, 8, 0, 0, 8, 0]
    assert examples[0]["clinical"]["age"] == 40 and examples[0]["clinical_known"]["age"]
    assert examples[3]["clinical"]["age"] == 0 and not examples[3]["clinical_known"]["age"]
    assert "10.1016/j.compbiomed.2019.05.002" in info.citation and "data-usage-policies" in info.description


def test_each_folder_and_each_state_of_a_folder_has_its_own_cache(tiny, tmp_path):
    cache = tmp_path / "cache"
    shutil.copytree(tiny, tmp_path / "twin")  # preserves sizes and times
    first = next(kaggle.load_volumes(tiny, cache))
    next(kaggle.load_volumes(tmp_path / "twin", cache))
    assert len(cached(cache)) == 2
    path = tiny / PATIENT / f"{PATIENT}_1.tif"
    pixels = read(path)
    Image.fromarray(255 - pixels).save(path)
    os.utime(path, ns=(0, 0))
    np.testing.assert_array_equal(next(kaggle.load_volumes(tiny, cache)).image[0], 255 - first.image[0])
    assert len(cached(cache)) == 3


def test_prepared_once(tiny, tmp_path, monkeypatch):
    cache.prepared(kaggle.LggMri, tiny, tmp_path / "cache")
    monkeypatch.setattr(kaggle, "read_volume", None)
    assert cache.prepared(kaggle.LggMri, tiny, tmp_path / "cache").info.splits.total_num_examples == 6


def test_the_preparation_prints_nothing(tiny, tmp_path, capfd):
    list(kaggle.load_volumes(tiny, tmp_path / "cache"))
    assert "\n".join(capfd.readouterr()).strip() == ""


def _load(tiny, cache):
    assert len(list(kaggle.load_volumes(tiny, cache))) == 2


def test_another_process_finishes_the_same_preparation_first(tiny, tmp_path, monkeypatch):
    prepare_one = kaggle.LggMri.download_and_prepare

    def overtaken(self, **arguments):
        monkeypatch.setattr(kaggle.LggMri, "download_and_prepare", prepare_one)
        _load(tiny, tmp_path / "cache")
        prepare_one(self, **arguments)

    monkeypatch.setattr(kaggle.LggMri, "download_and_prepare", overtaken)
    _load(tiny, tmp_path / "cache")
    assert len(cached(tmp_path / "cache")) == 1


def test_a_killed_preparation_is_repeated(tiny, tmp_path):
    program = f"""
import os
from lgg_jax.data.layouts import kaggle
kaggle.slice_pairs = lambda folder: os._exit(9)
next(kaggle.load_volumes({str(tiny)!r}, {str(tmp_path / "cache")!r}))
"""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.run([sys.executable, "-c", program], check=False, env=environment).returncode == 9
    (left,) = cached(tmp_path / "cache")
    assert left.startswith(".")
    _load(tiny, tmp_path / "cache")
    others = tmp_path / "cache" / ".vscode-insiders", tmp_path / "cache" / ".lgg_mri-notes-ofsomeone"
    for path in (tmp_path / "cache" / left, *others):
        path.mkdir(exist_ok=True)
        os.utime(path, (0, 0))
    (tiny / "data.csv").touch()
    _load(tiny, tmp_path / "cache")
    assert left not in cached(tmp_path / "cache")
    assert all(path.is_dir() for path in others), "folders of other programs were removed"


def test_a_full_disk(tiny, tmp_path, monkeypatch):
    def full(self, **_):
        raise RuntimeError("ResourceExhaustedError: slices.tfrecord; No space left on device")

    monkeypatch.setattr(kaggle.LggMri, "download_and_prepare", full)
    with pytest.raises(UserError, match="No space left on device"):
        list(kaggle.load_volumes(tiny, tmp_path / "cache"))
    assert cached(tmp_path / "cache") == []


def test_a_cache_that_is_a_file(tiny, tmp_path):
    (tmp_path / "cache").touch()
    with pytest.raises(UserError, match="cannot write prepared data"):
        list(kaggle.load_volumes(tiny, tmp_path / "cache"))


def test_real_data(real_data, tmp_path):
    patients = ["TCGA_CS_4941", "TCGA_HT_A61B"]
    for patient in patients:
        (folder,) = (real_data / "kaggle_3m").glob(f"{patient}_*")
        (tmp_path / folder.name).symlink_to(folder)
    shutil.copy(real_data / "kaggle_3m" / "data.csv", tmp_path)
    volumes = list(kaggle.load_volumes(tmp_path, tmp_path / "cache"))
    assert [(volume.patient, volume.image.shape) for volume in volumes] == [
        ("TCGA_CS_4941", (23, 256, 256, 3)), ("TCGA_HT_A61B", (88, 256, 256, 3)),
    ]  # fmt: skip
    assert (volumes[1].image == volumes[1].image[..., 1:2]).all()
