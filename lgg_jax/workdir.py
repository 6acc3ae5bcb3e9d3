"""The folder of one training run: what lies in it, and that it belongs to one config.

    config.json       the resolved config            checkpoints/<step>/   weights and optimizer state
    splits.json       who trains, validates, tests   logs/                 TensorBoard events and metrics.jsonl
    length.json       how many steps the run has     postprocess.json      flips, clean-up, threshold
    eval/<name>/      metrics.json, cases.csv and figures of one evaluation
"""

import json
import os
from pathlib import Path

import ml_collections

from lgg_jax.errors import UserError

# Where the data lies may differ between two machines that share a run; all else would make it another run.
_MAY_DIFFER = ("data.dir", "data.cache_dir")


def write_json(path: Path, content: dict) -> None:
    """Written beside and renamed, so that no reader meets half a file; NaN is refused."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def read_json(path: Path, remedy: str) -> dict:
    """The content of a JSON file; UserError, with the remedy, where it is missing or broken."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path} ({error})", remedy) from error


def read_config(workdir: str | Path) -> ml_collections.ConfigDict:
    """The config that the run in `workdir` was started with."""
    remedy = "pass the --workdir of a training run"
    return ml_collections.ConfigDict(read_json(Path(workdir) / "config.json", remedy))


def claim(workdir: str | Path, config: ml_collections.ConfigDict) -> Path:
    """Makes the folder and writes config.json; refuses a folder that holds a run of another config."""
    path = Path(workdir)
    content = json.loads(config.to_json())
    if (path / "config.json").exists():
        before = _flat(read_json(path / "config.json", "remove the workdir or pass another --workdir"))
        now = _flat(content)
        changed = [key for key in sorted(before | now) if before.get(key) != now.get(key) and key not in _MAY_DIFFER]
        if changed:
            listing = ", ".join(f"{key} was {before.get(key)} and is {now.get(key)}" for key in changed[:4])
            raise UserError(
                f"{path} holds a run of another config ({listing}{' …' * (len(changed) > 4)})",
                "pass another --workdir, or the config of that run to go on with it",
            )
        return path
    if path.exists() and not path.is_dir():
        raise UserError(f"{path} is a file", "pass a folder as --workdir")
    try:
        write_json(path / "config.json", content)
    except OSError as error:
        raise UserError(f"cannot write to {path} ({error})", "pass another --workdir or free space") from error
    return path


def _flat(content: dict, prefix: str = "") -> dict:
    flat = {}
    for key, value in content.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat
