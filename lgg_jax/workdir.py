"""The folder of one training run: what lies in it, and that it belongs to one config.

    config.json       the resolved config            checkpoints/<step>/   weights and optimizer state
    splits.json       who trains, validates, tests   logs/                 TensorBoard events and metrics.jsonl
    length.json       how many steps the run has     postprocess.json      grids, flips, clean-up, threshold
    versions.json     of what the run began with     tabular.json          clinical values as numbers, if any
    eval/<name>/      metrics.json, cases.csv and figures of one evaluation
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

# Where the data lies may differ between two machines that share a run; all else would make it another run.
_MAY_DIFFER = ("data.dir", "data.cache_dir")
# By the name they are installed under; of TensorFlow there are two.
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
    """The content of a JSON file; UserError, with the remedy, where it is missing or broken."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path} ({error})", remedy) from error


def read_config(
    workdir: str | Path, remedy: str = "pass the --workdir of a training run"
) -> ml_collections.ConfigDict:
    """The config that the run in `workdir` was started with; fields that are newer than the run as by default.

    A `data.cache_dir` that this machine does not have is left out, with a warning.
    """
    fields = _with_newer(read_fields(Path(workdir), remedy), workdir)
    cache_dir = fields.get("data.cache_dir")
    if cache_dir and not Path(cache_dir).is_dir():
        logging.warning("%s prepared its data in %s, which is not here: as without it", workdir, cache_dir)
        fields["data.cache_dir"] = ""
    return ml_collections.ConfigDict(traverse_util.unflatten_dict(fields, sep="."))


def read_fields(workdir: Path, remedy: str) -> dict:
    """{"data.size": 256, …}: config.json as it is; UserError, with the remedy, where it is of no training run."""
    content = read_json(workdir / "config.json", remedy)
    if "task" not in content:
        raise UserError(f"{workdir}/config.json is not of a training run", remedy)
    return traverse_util.flatten_dict(content, sep=".")


def _with_newer(fields: dict, workdir: str | Path) -> dict:
    """The fields of a run, and those that came after it: configs/default.py has them as it was before they came."""
    newer = {name: value for name, value in config_lib.default_fields().items() if name not in fields}
    if newer:
        logging.warning("%s was begun before there was %s: as in configs/default.py", workdir, ", ".join(newer))
    return fields | newer


def num_steps(workdir: Path) -> int:
    """How many steps the run in `workdir` has."""
    return read_json(workdir / "length.json", "remove the workdir and start again")["num_steps"]


def evaluate_command(workdir: Path, splits: dict) -> str:
    """What to type after the training, for the patients that `splits` keeps for it."""
    return f"python -m lgg_jax evaluate --workdir={workdir}" + ("" if splits["test"] else " --split=validation")


def read_chosen(workdir: Path, kind: type):
    """What the training chose on validation, as a dataclass of type `kind`; the default of a field newer than it."""
    content = read_json(workdir / "postprocess.json", "let the training end first: give its command again")
    return kind(**{field.name: content[field.name] for field in dataclasses.fields(kind) if field.name in content})


def started(workdir: Path) -> bool:
    """Whether a run has begun here: config.json is the last of the files that `begin` writes."""
    return (workdir / "config.json").exists()


def check(workdir: Path, config: ml_collections.ConfigDict) -> None:
    """Refuses a folder that holds a run of another config, or that is no folder."""
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
            f"{workdir} holds a run of another config ({listing}{', …' * (len(changed) > 4)})",
            "pass another --workdir, or the config of that run to go on with it",
        )


def begin(
    workdir: Path, config: ml_collections.ConfigDict, splits: dict, num_steps: int,
    files: dict[str, dict] | None = None, data: str = "",
) -> None:
    """Writes down what every resume and evaluation goes by; nothing is written before the run is known to work.

    `files` are the task's own, by name; `data` is `dataset.version` of what it is trained on.
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
    """What computes: git's commit, the version of each installed package, Python, the platform and JAX's devices."""
    found = _commit()
    for name in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    computer = {"python": platform.python_version(), "platform": platform.platform()}
    return found | computer | {"devices": parallel.described()}


def _commit() -> dict[str, str]:
    """{"commit": "0123456789ab", "-dirty" after it where files have changed since}; empty outside a git checkout."""
    if not (_ROOT / ".git").exists():  # git itself would look further up, and find another project's
        return {}
    command = ["git", "-C", str(_ROOT), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    with contextlib.suppress(OSError, subprocess.SubprocessError):  # no git, or a checkout that is another user's
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
        return {"commit": done.stdout.strip()}
    return {}
