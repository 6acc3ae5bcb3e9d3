"""The data set that a config names: its patients, their volumes, and who trains, validates and tests.

    splits = resolve_splits(config, workdir / "splits.json")
    for volume in load_volumes(config.data, splits["test"]):
        ...
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

import ml_collections

from lgg_jax import parallel
from lgg_jax.data import lgg_mri
from lgg_jax.data import splits as splits_lib
from lgg_jax.data.volume import Volume
from lgg_jax.errors import UserError


def load_volumes(config: ml_collections.ConfigDict, patients: Iterable[str] | None = None) -> Iterator[Volume]:
    """Volumes of `config.dir`, all or those of `patients`; prepared in the cache on first use."""
    return lgg_mri.load_volumes(data_folder(config), config.cache_dir, patients)


def resolve_splits(config: ml_collections.ConfigDict, path: Path) -> dict:
    """The run's splits: those already written at `path`, else those `config.data` asks for, then written there."""
    everyone = lgg_mri.list_patients(data_folder(config.data))
    if path.exists():
        splits = splits_lib.read_splits(path)
    elif config.data.splits:
        splits = splits_lib.read_splits(config.data.splits)
    else:
        fractions = config.data.test_fraction, config.data.validation_fraction
        splits = splits_lib.make_splits(everyone, config.seed, *fractions, config.data.folds, config.data.fold)
    splits_lib.validate_splits(splits, everyone["patient"])
    if parallel.is_first_host() and not path.exists():
        splits_lib.write_splits(path, splits)
    return splits


def data_folder(config: ml_collections.ConfigDict) -> str:
    """`config.dir`, which must be given."""
    if not config.dir:
        raise UserError("config.data.dir is not set", "pass --config.data.dir=DIR, the folder of the patient folders")
    return config.dir
