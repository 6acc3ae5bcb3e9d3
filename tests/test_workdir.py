"""Run directory: its files, its config, and atomic writes."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from configs import default
from lgg_jax import workdir
from lgg_jax.errors import UserError

SPLITS = {"format": 1, "by": "patient", "train": ["a"], "validation": ["b"], "test": []}


def begun(folder: Path, **fields) -> Path:
    config = default.get_config()
    config.update_from_flattened_dict(fields)
    workdir.begin(folder, config, SPLITS, num_steps=7)
    return folder


def test_a_started_run_is_read_back(tmp_path):
    folder = begun(tmp_path / "a" / "run", **{"optimizer.frozen": ("encoder0",)})
    assert workdir.started(folder)
    assert workdir.num_steps(folder) == 7
    assert json.loads((folder / "splits.json").read_text()) == SPLITS
    config = workdir.read_config(folder)
    assert list(config.optimizer.frozen) == ["encoder0"]
    assert config.to_json() == json.dumps(json.loads(config.to_json()))
    files = ["config.json", "length.json", "splits.json", "versions.json"]
    assert sorted(path.name for path in folder.iterdir()) == files


def test_a_run_has_started_when_the_last_file_is_written(tmp_path, monkeypatch):
    """If `begin` is killed between two files, a run can start in the folder again."""
    written = []
    write_json = workdir.write_json

    def killed(path, content):
        if path.name == "config.json":
            raise KeyboardInterrupt
        written.append(path.name)
        write_json(path, content)

    monkeypatch.setattr(workdir, "write_json", killed)
    with pytest.raises(KeyboardInterrupt):
        begun(tmp_path)
    assert written == ["splits.json", "length.json", "versions.json"]
    assert not workdir.started(tmp_path)
    workdir.check(tmp_path, default.get_config())


def test_versions_json(tmp_path, monkeypatch):
    monkeypatch.setattr(workdir, "_PACKAGES", ("jax", "numpy", "not-installed"))
    monkeypatch.setattr(workdir, "_commit", lambda: {"commit": "abc"})
    workdir.begin(tmp_path, default.get_config(), SPLITS, 7, data="two patients")
    written = json.loads((tmp_path / "versions.json").read_text())
    assert list(written) == ["data", "commit", "jax", "numpy", "python", "platform", "devices"]
    assert (written["data"], written["commit"]) == ("two patients", "abc")
    assert (written["jax"], written["numpy"]) == (jax.__version__, np.__version__)
    assert written["python"] == sys.version.split()[0]
    assert written["devices"] == f"{jax.device_count()} × cpu (cpu)"


def test_the_commit_of_the_code(tmp_path, monkeypatch):
    """The commit is that of the package's own checkout, not of a parent folder, and is marked if files changed."""
    if not shutil.which("git"):
        pytest.skip("git is not installed")

    def git(*words):
        person = ["-c", "user.name=a", "-c", "user.email=a@b"]
        return subprocess.run(["git", "-C", tmp_path, *person, *words], check=True, capture_output=True, text=True)

    (tmp_path / "inner").mkdir()
    (tmp_path / "code.py").write_text("1\n")
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "first"], ["tag", "-am", "v1", "v1"]):
        git(*words)
    monkeypatch.setattr(workdir, "_ROOT", tmp_path / "inner")
    assert "commit" not in workdir.versions()
    monkeypatch.setattr(workdir, "_ROOT", tmp_path)
    commit = git("rev-parse", "HEAD").stdout[:12]
    assert workdir.versions()["commit"] == commit
    (tmp_path / "code.py").write_text("2\n")
    assert workdir.versions()["commit"] == f"{commit}-dirty"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "commit" not in workdir.versions(), "without git"


@pytest.mark.parametrize("fields", [{}, {"data.dir": "/elsewhere"}, {"data.cache_dir": "/elsewhere"}])
def test_the_same_config_may_resume(tmp_path, fields):
    begun(tmp_path, **{"data.dir": "/here"})
    config = default.get_config()
    config.update_from_flattened_dict(fields)
    workdir.check(tmp_path, config)


@pytest.mark.parametrize("fields, expected", [
    ({"seed": 1}, "seed was 0 and is 1"),
    ({"augment.crop_scale": (0.5, 1.0)}, r"augment.crop_scale was \[0.8, 1.1\] and is \[0.5, 1.0\]"),
    ({"optimizer.frozen": ("up0",)}, r"optimizer.frozen was \[\] and is \['up0'\]"),
    ({"seed": 1, "model.levels": 3, "model.features": 8, "loss.bce": 0.5, "loss.dice": 0.5}, r"was 5 and is 3, …\)"),
])  # fmt: skip
def test_another_config_is_refused(tmp_path, fields, expected):
    begun(tmp_path)
    config = default.get_config()
    config.update_from_flattened_dict(fields)
    with pytest.raises(UserError, match=expected):
        workdir.check(tmp_path, config)


def test_a_new_field_is_another_config(tmp_path):
    begun(tmp_path)
    config = default.get_config()
    config.model.unlock()
    config.model.novelty = 3
    with pytest.raises(UserError, match=r"model\.novelty was None and is 3"):
        workdir.check(tmp_path, config)


def test_fields_newer_than_a_run_have_default_values(tmp_path, caplog):
    begun(tmp_path, **{"model.features": 8, "augment.crop_scale": (0.5, 1.0)})
    content = json.loads((tmp_path / "config.json").read_text())
    complete = workdir.read_config(tmp_path)
    assert not caplog.text
    del content["loss"], content["model"]["grade_head"]
    (tmp_path / "config.json").write_text(json.dumps(content))
    assert workdir.read_config(tmp_path) == complete and complete.model.features == 8
    [line] = caplog.messages
    newer = [f"loss.{name}" for name in default.get_config().loss] + ["model.grade_head"]
    assert line.startswith(f"{tmp_path} is older than the config fields ") and all(name in line for name in newer)
    config = default.get_config()
    config.update_from_flattened_dict({"model.features": 8, "augment.crop_scale": (0.5, 1.0)})
    workdir.check(tmp_path, config)
    config.model.grade_head = True
    with pytest.raises(UserError, match=r"config \(model\.grade_head was False and is True\)"):
        workdir.check(tmp_path, config)


def test_the_config_of_another_program_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"architectures": []}')
    for read in (workdir.read_config, lambda folder: workdir.check(folder, default.get_config())):
        with pytest.raises(UserError, match=r"config\.json is not the config of a training run"):
            read(tmp_path)


def test_a_run_may_start_in_a_new_or_empty_folder(tmp_path):
    workdir.check(tmp_path, default.get_config())
    workdir.check(tmp_path / "new", default.get_config())
    assert not (tmp_path / "new").exists()


def test_a_file_as_workdir_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file is a file"):
        workdir.check(tmp_path / "file", default.get_config())
    with pytest.raises(UserError, match="cannot write to"):
        begun(tmp_path / "file" / "run")


@pytest.mark.parametrize("content", [None, "{", ""])
def test_a_missing_or_broken_file(tmp_path, content):
    path = tmp_path / "x.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match=r"cannot read .*x.json .*; look again"):
        workdir.read_json(path, "look again")


def test_a_failed_write_keeps_the_earlier_file(tmp_path):
    path = tmp_path / "splits.json"
    workdir.write_json(path, {"whole": 1})
    with pytest.raises(TypeError):
        workdir.write_json(path, {"not JSON": object()})
    assert json.loads(path.read_text()) == {"whole": 1}


def test_nan_is_not_written(tmp_path):
    path = tmp_path / "x.json"
    workdir.write_json(path, {"a": 1})
    with pytest.raises(ValueError):
        workdir.write_json(path, {"a": float("nan")})
    assert json.loads(path.read_text()) == {"a": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.json"]
