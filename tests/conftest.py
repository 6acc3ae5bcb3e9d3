"""Shared fixtures: phantom data, a trained run, small weights, and the command line."""

import contextlib
import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import ml_collections
import numpy as np
import pytest
from PIL import Image

from configs import smoke
from lgg_jax import __main__, synthesize
from lgg_jax.models import resnet
from lgg_jax.weights import names, pretrained

__main__.import_tensorflow()  # Before a test module imports TensorFlow without these settings.
ROOT = Path(__file__).parents[1]
# XLA compiles three levels in half the time of five. EMA of the weights and dropout are on, because checkpoints and
# resuming must handle them.
FIELDS = {"model.levels": 3, "model.dropout": 0.1, "optimizer.ema_decay": 0.9, "train.num_steps": 20}


class Result(NamedTuple):
    """Exit code, stdout and stderr of a command."""

    code: int
    out: str
    err: str


@pytest.fixture(scope="session", autouse=True)
def caches(tmp_path_factory):
    """Cache prepared data and compiled programs for the session, including the processes that tests start."""
    folder = tmp_path_factory.getbasetemp().parent / "compiled"  # shared by all workers and by later sessions
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LGG_JAX_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("JAX_COMPILATION_CACHE_DIR", str(folder))
        patch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")
        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
        yield


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory) -> Path:
    """Twelve phantom patients. Read-only."""
    folder = tmp_path_factory.mktemp("phantoms")
    synthesize.synthesize(folder, patients=12)
    return folder


@pytest.fixture(scope="session")
def small_phantoms(tmp_path_factory) -> Path:
    """Twelve phantom patients with 64 × 64 pixels, for training. Read-only."""
    folder = tmp_path_factory.mktemp("small")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(synthesize, "SIZE", 64)
        synthesize.synthesize(folder, patients=12)
    return folder


@pytest.fixture
def smoke_config(small_phantoms) -> ml_collections.ConfigDict:
    """configs/smoke.py with FIELDS, for training in this process."""
    config = smoke.get_config()
    config.update_from_flattened_dict({**FIELDS, "data.dir": str(small_phantoms)})
    return config


@pytest.fixture(scope="session")
def trained(small_phantoms, tmp_path_factory) -> Path:
    """The run directory of a complete training with `smoke_config`. Read-only: copy it to change it."""
    from lgg_jax import train

    config = smoke.get_config()
    config.update_from_flattened_dict({**FIELDS, "data.dir": str(small_phantoms)})
    workdir = tmp_path_factory.mktemp("trained") / "run"
    train.train(config, workdir)
    return workdir


@pytest.fixture(scope="module")
def small_resnet():
    """ResNet50 with four narrow blocks. XLA compiles a step in seconds instead of half a minute."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resnet, "BLOCKS", (1, 1, 1, 1))
        patch.setattr(resnet, "WIDTHS", (4, 4, 8, 8))
        yield


@pytest.fixture(scope="module")
def weights(small_resnet, tmp_path_factory) -> Path:
    """A file with random weights of `small_resnet` and the input scaling of Keras."""
    model = resnet.ResNet50(True)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), np.zeros((1, 32, 32, 3)), train=False))
    rng = np.random.default_rng(0)

    def values(path, leaf):
        fan_in = np.prod(leaf.shape[:-1]) if path[-1].key == "kernel" else 1e3
        noise = rng.normal(scale=np.sqrt(2 / fan_in), size=leaf.shape)
        return np.float32(1 + noise if path[-1].key in ("scale", "var") else noise)

    about = {"stride_on_first": True, "epsilon": 1e-3, "source": "random", "sha256": "0" * 64}
    content = pretrained.Pretrained(jax.tree.map_with_path(values, shapes), **about, **names.LAYOUTS[0].expects)
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    pretrained.write_pretrained(path, content)
    return path


@pytest.fixture(scope="session")
def lgg() -> Callable[..., Result]:
    """A function that runs the command line in this process, such as `lgg("evaluate", "--workdir=W")`."""

    def command(*words: object) -> Result:
        out, err = io.StringIO(), io.StringIO()
        with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as ended:
            patch.setattr(sys, "argv", ["lgg_jax", *map(str, words)])  # config_flags reads it
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                __main__.run()
        return Result(ended.value.code or 0, out.getvalue(), err.getvalue())

    return command


def smoke_words(data_dir: Path, workdir: Path, **fields: object) -> list[str]:
    """Return the arguments of `lgg_jax train` with configs/smoke.py and FIELDS; `fields` have __ instead of a dot."""
    changed = FIELDS | {name.replace("__", "."): value for name, value in fields.items()} | {"data.dir": data_dir}
    changes = [f"--config.{name}={value}" for name, value in changed.items()]
    return ["train", f"--config={ROOT}/configs/smoke.py", f"--workdir={workdir}", *changes]


def launch(*words: object, **environment: str) -> subprocess.Popen:
    """Start `python -m lgg_jax WORDS` in a process of its own, without waiting for it."""
    return subprocess.Popen(
        [sys.executable, "-m", "lgg_jax", *map(str, words)],
        cwd=ROOT, env=os.environ | environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def result(process: subprocess.Popen, timeout: float = 240) -> Result:
    """Wait for a process that `launch` started."""
    try:
        out, err = process.communicate(timeout=timeout)
    finally:
        process.kill()
    return Result(process.returncode, out, err)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of the real data."""
    folder = os.environ.get("LGG_JAX_REAL_DATA")
    if not folder:
        pytest.skip("LGG_JAX_REAL_DATA does not name the folder of the real data")
    return Path(folder)


@pytest.fixture
def tiny(tmp_path) -> Path:
    """Two patients with three slices of 8×8 pixels, tumour in the second slice, and grades in data.csv. Writable."""
    root = tmp_path / "tiny"
    for seed, name in enumerate(("TCGA_CS_0001_19990101", "TCGA_DU_0002_20000202")):
        write_patient(root / name, seed)
    (root / "data.csv").write_text(
        "Patient,neoplasm_histologic_grade,age_at_initial_pathologic\nTCGA_CS_0001,1,40\nTCGA_DU_0002,2,\n"
    )
    return root


def write_patient(folder: Path, seed: int, slices: int = 3) -> None:
    """Write random slices of 8×8 pixels in the kaggle_3m layout, with tumour in the second slice."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for index in range(1, slices + 1):
        mask = np.zeros((8, 8), np.uint8)
        mask[2:4, 2:6] = 255 if index == 2 else 0
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(folder / f"{folder.name}_{index}.tif")
        Image.fromarray(mask).save(folder / f"{folder.name}_{index}_mask.tif")
