"""Data that several tests read: phantoms made once, tiny folders made per test, and the real data where it is."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lgg_jax.data import synthetic


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory) -> Path:
    """Twelve phantom patients, prepared in a cache that lasts as long as the session. Only to be read."""
    folder = tmp_path_factory.mktemp("phantoms")
    synthetic.synthesize(folder, patients=12)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LGG_JAX_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield folder


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of the real data."""
    folder = os.environ.get("LGG_JAX_REAL_DATA")
    if not folder:
        pytest.skip("LGG_JAX_REAL_DATA does not name the folder of the real data")
    return Path(folder)


@pytest.fixture
def tiny(tmp_path) -> Path:
    """Two patients of three 8×8 slices, tumour in the second, with the grades in data.csv; to be spoilt at will."""
    root = tmp_path / "tiny"
    for seed, name in enumerate(("TCGA_CS_0001_19990101", "TCGA_DU_0002_20000202")):
        write_patient(root / name, seed)
    (root / "data.csv").write_text(
        "Patient,neoplasm_histologic_grade,age_at_initial_pathologic\nTCGA_CS_0001,1,40\nTCGA_DU_0002,2,\n"
    )
    return root


def write_patient(folder: Path, seed: int, slices: int = 3) -> None:
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for index in range(1, slices + 1):
        mask = np.zeros((8, 8), np.uint8)
        mask[2:4, 2:6] = 255 if index == 2 else 0
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(folder / f"{folder.name}_{index}.tif")
        Image.fromarray(mask).save(folder / f"{folder.name}_{index}_mask.tif")
