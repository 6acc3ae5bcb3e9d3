"""The names of the package itself, imported when they are first used."""

import subprocess
import sys

import pytest
from conftest import ROOT

import lgg_jax
from lgg_jax.errors import UserError


def test_a_run_and_a_scan(trained, small_phantoms):
    patient = sorted(path for path in small_phantoms.iterdir() if path.is_dir())[0]
    scan = lgg_jax.read_scan(patient)
    mask = lgg_jax.load([str(trained)]).segment(scan.volume)
    assert mask.dtype == bool and mask.shape == scan.volume.image.shape[:3]
    variables, step = lgg_jax.restore(trained)
    assert set(variables) == {"params", "batch_stats"} and step > 0


def test_the_import_alone_loads_nothing():
    program = "import sys, lgg_jax; print([name for name in ('jax', 'tensorflow', 'numpy') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done.stderr
    assert {"load", "read_scan", "restore"} <= set(dir(lgg_jax))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = lgg_jax.nothing


def test_several_scans_are_refused(small_phantoms):
    with pytest.raises(UserError, match="holds 12 scans"):
        lgg_jax.read_scan(small_phantoms)
