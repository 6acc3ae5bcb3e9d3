"""User errors on the command line: one line that begins with `lgg_jax: error:`, exit code 2, no files changed."""

import errno
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, Result, launch, result, smoke_words
from PIL import Image

from lgg_jax import __main__

VERBS = tuple(__main__.VERBS)


def assert_one_line(ended: Result, expected: str):
    """Assert that a command failed with a user error of one line that matches `expected`."""
    assert ended.code == 2, ended
    assert len(ended.err.splitlines()) == 1, ended.err
    assert re.fullmatch(f"lgg_jax: error: .*{expected}.*; .+", ended.err.strip()), ended.err


def digests(folder: Path) -> dict[Path, str]:
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def writable_phantoms(small_phantoms, tmp_path) -> Path:
    """A copy of the phantoms that a test may damage."""
    return Path(shutil.copytree(small_phantoms, tmp_path / "phantoms"))


@pytest.mark.parametrize("words, expected", [
    ((), "no verb given"),
    (("trian",), "'trian' is not a verb"),
    (("train",), "--config"),
    (("train", "--config={root}/configs/smoke.py"), "--workdir"),
    (("train", "--workdir=w"), "--config"),
    (("train", "--config=configs/nothing.py", "--workdir=w"), "no such config file: configs/nothing.py"),
    (("train", "--config", "configs/nothing.py", "--workdir=w"), "no such config file: configs/nothing.py"),
    (("train", "--config={root}/configs/smoke.py", "--workdir=w", "--config.train.num_stesp=3"),
     "no config field is named 'num_stesp' (Did you mean \"num_steps\""),
    (("train", "--config={root}/configs/smoke.py", "--workdir=w", "--config.nothing.num_steps=3"),
     "no config field is named 'nothing'"),
    (("train", "--config={root}/configs/smoke.py", "--workdir=w", "--config.train.num_steps=many"), "many"),
    (("train", "--config={root}/configs/smoke.py", "--workdir=w", "--config.train=3"), "is not a dict"),
    (("train", "--config={root}/configs/smoke.py", "--workdir=w", "--nothing=3"), "nothing"),
    (("train", "--config={root}/configs/smoke.py", "--workdir=w", "more"), "'more' is not a flag"),
    (("train", "--config={root}/configs/smoke.py", "--workdir=w"), "config.data.dir is not set"),
    (("check",), "--data_dir is not given"),
    (("check", "--data_dir=nowhere"), "no such folder: nowhere"),
    (("synthesize",), "--output"),
    (("synthesize", "--output=new", "--patients=0"), "patients"),
    (("synthesize", "--output=new", "--patients=some"), "patients"),
    (("evaluate",), "--workdir is not given"),
    (("evaluate", "--workdir=nowhere"), "cannot read nowhere/config.json"),
    (("evaluate", "--workdir=nowhere", "--split=tests"), "split"),
    (("evaluate", "--workdir=nowhere", "--step=last"), "step"),
])  # fmt: skip
def test_invalid_arguments(lgg, words, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert_one_line(lgg(*(word.format(root=ROOT) for word in words)), re.escape(expected))
    assert not list(tmp_path.iterdir()), "the failed command wrote files"


@pytest.mark.parametrize("fields, expected", [
    ({"data__dir": "nowhere"}, "no such folder: .*nowhere"),
    ({"task": "guessing"}, "config.task='guessing'"),
    ({"data__size": 0}, "config.data.size=0"),
    ({"model__features": 0}, "config.model.features=0"),
    ({"model__levels": 0}, "config.model.levels=0"),
    ({"data__size": 30}, "30×30 pixels cannot be halved 2 times"),
    ({"model__name": "vnet"}, "config.model.name='vnet'"),
    ({"model__norm": "layer"}, "config.model.norm='layer'"),
    ({"model__norm": "group"}, "config.model.features=4 cannot"),
    ({"model__dtype": "float23"}, "config.model.dtype='float23'"),
    ({"optimizer__name": "sdg"}, "config.optimizer.name='sdg'"),
    ({"optimizer__schedule": "linear"}, "config.optimizer.schedule='linear'"),
    ({"optimizer__frozen": "('encoder0',)"}, "config.optimizer.frozen='encoder0' would stay random"),
    ({"optimizer__frozen": "('encoder0/conv0',)"}, "names .'encoder0/conv0'"),
    ({"optimizer__accumulation": 3}, "batch_size=8 cannot be split evenly over 1 devices × 3"),
    ({"optimizer__accumulation": 0}, "config.optimizer.accumulation=0"),
    ({"eval__batch_size": 0}, "config.eval.batch_size=0"),
    ({"data__tumour_fraction": 50.0}, "config.data.tumour_fraction=50.0"),
    ({"data__context": -1}, "config.data.context=-1"),
    ({"data__channels": "flair,t1"}, r"config.data.channels=\('flair,t1',\) does not name"),
    ({"data__folds": 3, "data__validation_patients": "('TCGA_CS_0000',)"}, "folds=3 with named validation_patients"),
    ({"train__epochs": 2.0}, "the length of the training is"),
    ({"train__num_steps": 0}, "the length of the training is not given"),
    ({"train__num_steps": -5}, "config.train.num_steps=-5"),
    ({"train__eval_every": 0}, "config.train.eval_every=0"),
    ({"train__start_size": 25}, "slices of 25×25 pixels cannot be halved"),
    ({"train__start_size": -16}, "config.train.start_size=-16"),
    ({"train__start_share": 1.5}, "config.train.start_share=1.5"),
    ({"eval__flip_tta": "maybe"}, "config.eval.flip_tta='maybe'"),
    ({"eval__finer": "(32, 1)"}, "slices of 33×33 pixels cannot be halved"),
    ({"eval__finer": "(0,)"}, r"config.eval.finer=\(0,\)"),
    ({"eval__fill_holes": "maybe"}, "config.eval.fill_holes='maybe'"),
    ({"loss__bce": 0.0, "loss__dice": 0.0}, "config.loss has no term"),
    ({"data__test_fraction": 1.5}, "config.data.test_fraction=1.5"),
    ({"data__folds": 99}, "99 folds"),
    ({"data__splits": "nowhere.json"}, "cannot read splits from nowhere.json"),
    ({"init_from": "nowhere"}, "nowhere"),
    ({"model__pretrained": "weights.msgpack"}, "config.model.pretrained"),
])  # fmt: skip
def test_invalid_fields(lgg, small_phantoms, tmp_path, fields, expected):
    changed = {"data__dir": small_phantoms} | fields
    data_dir = changed.pop("data__dir")
    assert_one_line(lgg(*smoke_words(data_dir, tmp_path / "run", **changed)), expected)
    assert not (tmp_path / "run").exists(), "the failed command wrote a workdir"


def test_folders_without_patients(lgg, tmp_path):
    (tmp_path / "empty").mkdir()
    assert_one_line(lgg("check", f"--data_dir={tmp_path}/empty"), "no patient folders in .*empty")
    assert_one_line(lgg(*smoke_words(tmp_path / "empty", tmp_path / "run")), "no patient folders in .*empty")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("damage, expected", [("truncated", "cannot be read as TIFF"), ("mask", r"shape \(32, 32\)")])
def test_damaged_files(lgg, trained, writable_phantoms, tmp_path, damage, expected):
    path = sorted(writable_phantoms.glob("*/*_7.tif" if damage == "truncated" else "*/*_7_mask.tif"))[3]
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:2000])
    else:
        Image.fromarray(np.zeros((32, 32), np.uint8)).save(path)
    assert_one_line(lgg(*smoke_words(writable_phantoms, tmp_path / "run")), f"{path.name} .*{expected}")
    workdir = shutil.copytree(trained, tmp_path / "trained")
    words = "evaluate", f"--workdir={workdir}", f"--data_dir={writable_phantoms}", "--split=all"
    assert_one_line(lgg(*words), f"{path.name} .*{expected}")
    assert not (workdir / "eval").exists()
    assert not (tmp_path / "run").exists()


def test_a_workdir_with_another_config_is_refused_unchanged(lgg, trained, small_phantoms):
    before = digests(trained)
    ended = lgg(*smoke_words(small_phantoms, trained, seed=1, optimizer__learning_rate=0.5))
    assert_one_line(ended, r"holds a run with another config \(optimizer.learning_rate was 0.01 and is 0.5, seed was 0")
    assert digests(trained) == before


def test_a_workdir_with_broken_files(lgg, trained, small_phantoms, tmp_path):
    for name in ("config.json", "splits.json", "length.json"):
        workdir = Path(shutil.copytree(trained, tmp_path / name))
        (workdir / name).write_text("{")
        assert_one_line(lgg(*smoke_words(small_phantoms, workdir)), name)


def test_a_workdir_that_is_a_file(lgg, small_phantoms, tmp_path):
    (tmp_path / "file").write_text("mine")
    assert_one_line(lgg(*smoke_words(small_phantoms, tmp_path / "file")), "file is a file")
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("words, expected", [
    (("--step=3",), "no checkpoint of step 3"),
    (("--data_dir=nowhere", "--split=all"), "no such folder: .*nowhere"),
    (("--data_dir=nowhere",), "no such folder: nowhere"),
])  # fmt: skip
def test_user_errors_of_evaluate(lgg, trained, words, expected):
    before = digests(trained)
    assert_one_line(lgg("evaluate", f"--workdir={trained}", *words), expected)
    assert digests(trained) == before


def test_evaluate_needs_a_complete_training(lgg, trained, tmp_path):
    incomplete, empty = (Path(shutil.copytree(trained, tmp_path / name)) for name in ("incomplete", "empty"))
    (incomplete / "postprocess.json").unlink()
    assert_one_line(lgg("evaluate", f"--workdir={incomplete}"), "postprocess.json")
    shutil.rmtree(empty / "checkpoints")
    assert_one_line(lgg("evaluate", f"--workdir={empty}"), "no checkpoints")


@pytest.mark.parametrize("fields", [{"model__features": 8}, {"model__levels": 2}])
def test_init_from_another_model(lgg, trained, small_phantoms, tmp_path, fields):
    ended = lgg(*smoke_words(small_phantoms, tmp_path / "run", init_from=trained, **fields))
    assert_one_line(ended, "config.init_from=.*another model")
    assert not (tmp_path / "run").exists()


def test_init_from_a_model_of_other_sequences(lgg, trained, small_phantoms, tmp_path):
    """Sequences in another order give the same shapes, so the restored weights would silently see wrong inputs."""
    words = smoke_words(small_phantoms, tmp_path / "run", init_from=trained, data__channels="('flair','t1','t1ce')")
    assert_one_line(lgg(*words), r"was trained on \('t1', 'flair', 't1ce'\), not \('flair', 't1', 't1ce'\)")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("verb", VERBS)
def test_help_lists_the_flags_of_a_verb(lgg, verb):
    ended = lgg(verb, "--help")
    assert ended.code == 0
    assert f"python -m lgg_jax {verb}" in ended.out
    expected = {
        "check": "data_dir", "explore": "data_dir output", "synthesize": "output patients seed",
        "convert": "source output sha256 include_top", "train": "config workdir distributed",
        "evaluate": "workdir split data_dir name step", "report": "workdir output", "export": "workdir output",
        "predict": "workdir input output grade_workdir clinical probability max_gigabytes",
    }[verb]  # fmt: skip
    flags = re.findall(r"^  --(\w+): .+ \((?:default: .*|required)\)$", ended.out, re.MULTILINE)
    assert sorted(flags) == sorted(expected.split())


@pytest.mark.parametrize("word", ["--help", "-h", "help"])
def test_help_lists_the_verbs(lgg, word):
    ended = lgg(word)
    assert ended.code == 0
    assert all(f"\n  {verb} " in ended.out for verb in VERBS)


def test_ctrl_c_prints_no_traceback(lgg, monkeypatch):
    def interrupted(_argv):
        raise KeyboardInterrupt

    monkeypatch.setattr(__main__, "main", interrupted)
    assert lgg("train") == Result(130, "", "lgg_jax: interrupted\n")


@pytest.mark.parametrize("error", [
    OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
    RuntimeError(f"events.out.tfevents; {os.strerror(errno.ENOSPC)}\n\tFailed to flush 1 events"),
])  # fmt: skip
def test_a_full_disk_in_any_exception(lgg, monkeypatch, error):
    def full(_argv):
        raise error

    monkeypatch.setattr(__main__, "main", full)
    assert_one_line(lgg("train"), "no space left")


def test_user_errors_in_a_process_of_its_own(trained, small_phantoms, tmp_path):
    """Messages of libraries are not printed."""
    words = smoke_words(small_phantoms, trained, seed=1)
    assert_one_line(result(launch(*words)), "holds a run with another config")
    assert_one_line(result(launch("evaluate", f"--workdir={trained}", "--step=3")), "no checkpoint of step 3")


def test_a_bug_keeps_its_traceback(lgg, monkeypatch):
    def broken(_argv):
        return json.loads("{")

    monkeypatch.setattr(__main__, "main", broken)
    with pytest.raises(ValueError):
        lgg("train")


PAGES = """
import re, sys
from lgg_jax import __main__
__main__.use_huge_pages()
block = b"x" * 2**28
print(sys.argv, re.search(r"AnonHugePages: +([0-9]+) kB", open("/proc/self/smaps_rollup").read())[1])
"""


@pytest.mark.parametrize("words, tunables, huge", [
    (("train", "--workdir=w"), None, True),
    (("check", "--data_dir=d"), None, False),
    (("train", "--workdir=w"), "glibc.malloc.hugetlb=0", False),
])  # fmt: skip
def test_verbs_that_compute_restart_with_huge_pages(tmp_path, words, tunables, huge):
    setting = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    if not setting.exists() or "[madvise]" not in setting.read_text() or platform.libc_ver()[0] != "glibc":
        pytest.skip("this machine has no huge pages on request")
    (tmp_path / "tool.py").write_text(PAGES)
    environment = {name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"}
    environment |= {"PYTHONPATH": str(ROOT)} | ({"GLIBC_TUNABLES": tunables} if tunables else {})
    command = [sys.executable, tmp_path / "tool.py", *words]
    printed = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    argv, kilobytes = printed.rsplit(maxsplit=1)
    assert argv == str([str(tmp_path / "tool.py"), *words])
    assert (int(kilobytes) > 2**17) == huge
