"""Import contracts of pyproject.toml, the use of devices in one module, and interfaces of modules."""

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from lgg_jax.data import checks, layouts
from lgg_jax.protocols import provides
from lgg_jax.tasks import Task, segmentation

# The names of JAX that only lgg_jax/parallel.py may use.
DEVICES = {
    "pmap", "shard_map", "devices", "local_devices", "device_count", "local_device_count", "process_index",
    "process_count", "default_backend", "device_put", "distributed", "sharding", "SingleDeviceSharding",
}  # fmt: skip


def lint(folder: Path) -> subprocess.CompletedProcess:
    command = [Path(sys.executable).with_name("lint-imports"), "--no-cache"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)


@pytest.fixture
def copied(tmp_path) -> Path:
    """A writable copy of the package and its contracts."""
    for name in ("lgg_jax", "configs"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_the_contracts_hold():
    done = lint(ROOT)
    assert done.returncode == 0 and "3 kept, 0 broken" in done.stdout, done.stdout


@pytest.mark.parametrize("module, line, contract", [
    ("data/volume.py", "from lgg_jax import segmenter", "Imports run down"),
    ("evaluate.py", "from lgg_jax import train", "Imports run down"),
    ("metrics/overlap.py", "import tensorflow", "know nothing of TensorFlow"),
    ("models/unet.py", "from lgg_jax.data import pipeline", "know nothing of TensorFlow"),
    ("training/state.py", "import orbax.checkpoint", "imports Orbax"),
    ("brand_new.py", "import jax", "Imports run down"),
])  # fmt: skip
def test_a_forbidden_import_breaks_a_contract(copied, module, line, contract):
    with (copied / "lgg_jax" / module).open("a") as file:
        file.write(f"\n{line}\n")
    done = lint(copied)
    assert done.returncode == 1
    assert any(contract in text and "BROKEN" in text for text in done.stdout.splitlines()), done.stdout


def test_only_parallel_uses_devices():
    for path in sorted((ROOT / "lgg_jax").rglob("*.py")):
        tree = ast.parse(path.read_text())
        used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and _of_jax(node)}
        used |= {name.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)
                 and (node.module or "").split(".")[0] == "jax" for name in node.names}  # fmt: skip
        forbidden = used & DEVICES
        assert bool(forbidden) == (path.name == "parallel.py"), f"{path.name} uses {forbidden}"


def _of_jax(node: ast.Attribute) -> bool:
    """Return whether `node` is an attribute of jax at any depth: jax.x, jax.x.y."""
    while isinstance(node, ast.Attribute):
        node = node.value
    return isinstance(node, ast.Name) and node.id == "jax"


def test_an_incomplete_module_does_not_provide_a_protocol(monkeypatch):
    assert provides(segmentation, Task) is segmentation
    monkeypatch.delattr(segmentation, "pool")
    monkeypatch.delattr(segmentation, "SCORE")
    monkeypatch.setattr(segmentation, "headline", lambda: "")
    expected = r"does not provide Task: SCORE is missing, pool is missing, headline takes 0 arguments, not 1"
    with pytest.raises(TypeError, match=expected):
        provides(segmentation, Task)


def test_every_layout_has_a_check():
    assert list(checks.CHECKS) == list(layouts.LAYOUTS)
