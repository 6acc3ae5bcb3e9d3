"""Run directory (`workdir`): the files of one training run with one config.

    config.json       the resolved config                         checkpoints/<step>/   weights and optimizer state
    splits.json       training, validation and test patients      logs/                 TensorBoard and metrics.jsonl
    length.json       the number of steps of the run              postprocess.json      post-processing and thresholds
    versions.json     versions of packages, code and data         tabular.json          encoding of clinical values
    eval/<name>/      metrics.json, cases.csv and figures of one evaluation

postprocess.json is written at the end of the training, tabular.json only by runs that use clinical values.
"""

import contextlib
import dataclasses
import importlib.metadata
import json
import os
import platform
import subprocess
from pathlib import Path

import ml_collections
from absl import logging
from flax import traverse_util

from lgg_jax import config as config_lib
from lgg_jax import parallel
from lgg_jax.errors import UserError

_ROOT = Path(__file__).parents[1]

# Fields that may change when a run is resumed: another machine can have the data in another folder.
_MAY_DIFFER = ("data.dir", "data.cache_dir")
# Installed package names. TensorFlow has two.
_PACKAGES = ("lgg-jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "tensorflow", "tensorflow-cpu", "numpy")


def write_atomically(path: Path, content: bytes) -> None:
    """Write a temporary file in the same folder and rename it, so that no reader sees a partial file.

    Missing parent folders are created. If writing fails, the earlier file stays and the temporary file is removed.

    Raises:
      OSError: the folder or the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, content: dict) -> None:
    """Write a dictionary as JSON, atomically.

    Raises:
      OSError: the file cannot be written.
      ValueError: the content has a NaN or an infinity.
    """
    write_atomically(path, (json.dumps(content, indent=1, allow_nan=False) + "\n").encode())


def read_json(path: Path, remedy: str) -> dict:
    """Return the content of a JSON file.

    Raises:
      UserError: the file is missing or broken; `remedy` says what to do.
    """
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path} ({error})", remedy) from error


def read_config(
    workdir: str | Path, remedy: str = "pass the --workdir of a training run"
) -> ml_collections.ConfigDict:
    """Return the config of the run in `workdir`; fields that are newer than the run have their default values.

    A `data.cache_dir` that does not exist on this machine is set to "", with a warning.
    """
    fields = _with_newer(read_fields(Path(workdir), remedy), workdir)
    cache_dir = fields.get("data.cache_dir")
    if cache_dir and not Path(cache_dir).is_dir():
        logging.warning("%s has data.cache_dir=%s, which does not exist here; it is not used", workdir, cache_dir)
        fields["data.cache_dir"] = ""
    return ml_collections.ConfigDict(traverse_util.unflatten_dict(fields, sep="."))


def read_fields(workdir: Path, remedy: str) -> dict:
    """Return the fields in config.json unchanged, as {"data.size": 256, …}.

    Raises:
      UserError: the file is missing or does not belong to a training run; `remedy` says what to do.
    """
    content = read_json(workdir / "config.json", remedy)
    if "task" not in content:
        raise UserError(f"{workdir}/config.json is not the config of a training run", remedy)
    return traverse_util.flatten_dict(content, sep=".")


def _with_newer(fields: dict, workdir: str | Path) -> dict:
    """Return the fields of a run and the default values of the fields that are newer than the run.

    The default value of a new field in configs/default.py gives the behaviour that the code had before the field.
    """
    newer = {name: value for name, value in config_lib.default_fields().items() if name not in fields}
    if newer:
        names = ", ".join(newer)
        logging.warning("%s is older than the config fields %s; using configs/default.py for them", workdir, names)
    return fields | newer


def num_steps(workdir: Path) -> int:
    """Return the number of steps of the run in `workdir`."""
    return read_json(workdir / "length.json", "remove the workdir and start again")["num_steps"]


def evaluate_command(workdir: Path, splits: dict) -> str:
    """Return the command that evaluates the run on its test set, or on its validation set if it has no test set."""
    return f"python -m lgg_jax evaluate --workdir={workdir}" + ("" if splits["test"] else " --split=validation")


def read_chosen(workdir: Path, kind: type):
    """Return what the training chose on the validation set, as a dataclass of type `kind`.

    Fields that are newer than the run have their default values.

    Raises:
      UserError: the training is not complete.
    """
    content = read_json(workdir / "postprocess.json", "complete the training first: run its command again")
    return kind(**{field.name: content[field.name] for field in dataclasses.fields(kind) if field.name in content})


def started(workdir: Path) -> bool:
    """Return whether a run has started in `workdir`: `begin` writes config.json last."""
    return (workdir / "config.json").exists()


def check(workdir: Path, config: ml_collections.ConfigDict) -> None:
    """Raise UserError if `workdir` belongs to a run with another config or is not a folder."""
    if workdir.exists() and not workdir.is_dir():
        raise UserError(f"{workdir} is a file", "pass a folder as --workdir")
    if not started(workdir):
        return
    before = _with_newer(read_fields(workdir, "remove the workdir or pass another --workdir"), workdir)
    now = config_lib.fields_of(config)
    changed = [key for key in sorted(before | now) if before.get(key) != now.get(key) and key not in _MAY_DIFFER]
    if changed:
        listing = ", ".join(f"{key} was {before.get(key)} and is {now.get(key)}" for key in changed[:4])
        raise UserError(
            f"{workdir} holds a run with another config ({listing}{', …' * (len(changed) > 4)})",
            "pass another --workdir, or the config of that run to resume it",
        )


def begin(
    workdir: Path, config: ml_collections.ConfigDict, splits: dict, num_steps: int,
    files: dict[str, dict] | None = None, data: str = "",
) -> None:
    """Write the files that every resume and evaluation reads. Call it when all checks of the run have passed.

    Args:
      workdir: the run directory.
      config: the resolved config.
      splits: the content of splits.json.
      num_steps: the number of steps of the run.
      files: {file name: content} of the task's own JSON files.
      data: the version of the training data, from `dataset.version`.

    Raises:
      UserError: a file cannot be written.
    """
    try:
        for name, content in (files or {}).items():
            write_json(workdir / name, content)
        write_json(workdir / "splits.json", splits)
        write_json(workdir / "length.json", {"num_steps": num_steps})
        write_json(workdir / "versions.json", ({"data": data} if data else {}) | versions())
        write_json(workdir / "config.json", json.loads(config.to_json()))
    except OSError as error:
        raise UserError(f"cannot write to {workdir} ({error})", "pass another --workdir or free space") from error


def versions() -> dict[str, str]:
    """Return the git commit, the versions of the installed packages and of Python, the platform and the devices."""
    result = _commit()
    for name in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            result[name] = importlib.metadata.version(name)
    computer = {"python": platform.python_version(), "platform": platform.platform()}
    return result | computer | {"devices": parallel.describe_devices()}


def _commit() -> dict[str, str]:
    """Return {"commit": "0123456789ab"}, with "-dirty" appended if files have changed; {} outside a git checkout."""
    if not (_ROOT / ".git").exists():  # git would search the parent folders and might find another project.
        return {}
    command = ["git", "-C", str(_ROOT), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    # Suppressed errors: git is not installed, or the checkout belongs to another user.
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        git = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
        return {"commit": git.stdout.strip()}
    return {}
