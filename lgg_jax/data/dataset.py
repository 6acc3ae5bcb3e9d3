"""The data set that a config names: its patients, their volumes, and who trains, validates and tests.

    splits = resolve_splits(config)
    for volume in load_volumes(config.data, splits["test"]):
        ...
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

import ml_collections

from lgg_jax.data import lgg_mri
from lgg_jax.data import splits as splits_lib
from lgg_jax.data.volume import Volume
from lgg_jax.errors import UserError


def load_volumes(config: ml_collections.ConfigDict, patients: Iterable[str] | None = None) -> Iterator[Volume]:
    """Volumes of `config.dir`, all or those of `patients`; prepared in the cache on first use."""
    return lgg_mri.load_volumes(data_folder(config), config.cache_dir, patients)


def resolve_splits(config: ml_collections.ConfigDict) -> dict:
    """The splits of a new run.

    The first of: those of the run in `config.init_from`, the file `config.data.splits`, the named
    `config.data.validation_patients`, a new split by patient.
    """
    everyone = lgg_mri.list_patients(data_folder(config.data))
    if config.init_from:
        # A fine-tuning phase keeps the split: else patients it was trained on before would come to be tested.
        return checked(splits_lib.read_splits(Path(config.init_from) / "splits.json"), config)
    if config.data.splits:
        return checked(splits_lib.read_splits(config.data.splits), config)
    if config.data.validation_patients:
        return splits_lib.splits_by_validation(everyone, config.data.validation_patients)
    fractions = config.data.test_fraction, config.data.validation_fraction
    return splits_lib.make_splits(everyone, config.seed, *fractions, config.data.folds, config.data.fold)


def checked(splits: dict, config: ml_collections.ConfigDict) -> dict:
    """The splits, if all their patients are in the data."""
    splits_lib.validate_splits(splits, lgg_mri.list_patients(data_folder(config.data))["patient"])
    return splits


def data_folder(config: ml_collections.ConfigDict) -> str:
    """`config.dir`, which must be given."""
    if not config.dir:
        raise UserError("config.data.dir is not set", "pass --config.data.dir=DIR, the folder of the patient folders")
    return config.dir
