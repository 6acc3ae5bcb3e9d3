"""The data set that a config names: its layout, patients and volumes, and who trains, validates and tests.

    layout("DIR").list_patients("DIR")           # the module that reads what lies there: kaggle, brats or folder
    splits = resolve_splits(config)
    for volume in load_volumes(config.data, splits["test"]):
        ...
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

import ml_collections
import pandas as pd

from lgg_jax.data import layouts
from lgg_jax.data import splits as splits_lib
from lgg_jax.data.cases import Case
from lgg_jax.data.layouts import cache
from lgg_jax.data.volume import Volume, lacks_t2
from lgg_jax.errors import UserError


def layout(data_dir) -> layouts.Layout:
    """The module that reads what lies in data_dir; UserError where none does."""
    return layouts.find(data_dir)[1]


def load_volumes(config: ml_collections.ConfigDict, patients: Iterable[str] | None = None) -> Iterator[Volume]:
    """Volumes of `config.dir`, all or those of `patients`; prepared in the cache on first use."""
    data_dir = data_folder(config)
    for scan in layout(data_dir).load_volumes(data_dir, config.cache_dir, patients):
        if lacks_t2(scan.image, config.channels):
            cache.warn_once(f"{data_dir}: no t2, which config.data.channels names: FLAIR stands in for it")
        yield scan


def load_cases(config, prepare, patients: dict[str, set[int] | None] | None) -> Iterator[Case]:
    """The cases of `patients` (None: all), read one at a time; those without a known label are counted and left out."""
    left_out = 0
    for scan in load_volumes(config.data, patients):
        case = prepare(scan)
        if case is None:
            left_out += 1
            continue
        if patients is not None:
            case = case.select(splits_lib.rows(patients[scan.patient], case.slice_index))
        if len(case.images):  # a split by slice may leave a patient without any
            yield case
    if left_out:
        print(f"left out, their label is not known: {left_out} patients")


def list_patients(config: ml_collections.ConfigDict) -> pd.DataFrame:
    """A row a patient of `config.dir`: patient, folder, institution, grade."""
    data_dir = data_folder(config)
    return layout(data_dir).list_patients(data_dir)


def version(config: ml_collections.ConfigDict) -> str:
    """What `config.dir` holds now: "lgg_mri 1.0.0, 110 patients, 3,929 slices, fingerprint 0123456789abcdef".

    The fingerprint is that of `cache.fingerprint`, of this very copy: the same data elsewhere have another one.
    """
    data_dir = data_folder(config)
    kind = layout(data_dir).BUILDER
    slices = cache.prepared(kind, data_dir, config.cache_dir).info.splits["slices"].num_examples
    counts = f"{len(list_patients(config))} patients, {slices:,} slices"
    return f"{kind.name} {kind.VERSION}, {counts}, fingerprint {cache.fingerprint(kind, data_dir)}"


def resolve_splits(config: ml_collections.ConfigDict) -> dict:
    """The splits of a new run.

    The first of: those of the run in `config.init_from`, the file `config.data.splits`, the named
    `config.data.validation_patients`, slices dealt one by one, those of `config.data.segmentation_workdir`, a new
    split by patient.
    """
    splits = _resolve(config)
    if config.data.segmentation_workdir:
        _check_unseen(splits, config.data.segmentation_workdir)
    return splits


def _resolve(config: ml_collections.ConfigDict) -> dict:
    everyone = list_patients(config.data)
    if config.init_from:
        # A fine-tuning phase keeps the split: else patients it was trained on before would come to be tested.
        return _of_the_fold(read_splits(Path(config.init_from) / "splits.json", config), config)
    if config.data.splits:
        return _of_the_fold(read_splits(config.data.splits, config), config)
    if config.data.folds and (config.data.validation_patients or config.data.split_by == "slice"):
        wrong = f"config.data.folds={config.data.folds} with named validation_patients or split_by='slice'"
        raise UserError(wrong, "folds are dealt by patient: set one of them")
    if config.data.validation_patients:
        return splits_lib.splits_by_validation(everyone, config.data.validation_patients)
    fractions = config.data.test_fraction, config.data.validation_fraction
    if config.data.split_by == "slice":
        print("split by slice: slices of one patient train and are tested, which flatters every number of this run")
        slices = {scan.patient: scan.slice_index.tolist() for scan in load_volumes(config.data)}
        return splits_lib.make_slice_splits(slices, config.seed, *fractions)
    if config.data.split_by != "patient":
        raise UserError(f"config.data.split_by={config.data.split_by!r} is not known", "use 'patient' or 'slice'")
    if config.data.segmentation_workdir and not config.data.folds:
        return read_splits(Path(config.data.segmentation_workdir) / "splits.json", config)
    return splits_lib.make_splits(everyone, config.seed, *fractions, config.data.folds, config.data.fold)


def _of_the_fold(splits: dict, config: ml_collections.ConfigDict) -> dict:
    """`splits`, which a run or a file has settled; UserError where the config asks for another fold."""
    asked, given = (config.data.folds, config.data.fold), (splits.get("folds", 0), splits.get("fold", 0))
    if config.data.folds and asked != given:
        source = config.init_from or config.data.splits
        raise UserError(
            f"config.data.folds={asked[0]}, fold={asked[1]}, but the split of {source} has {given[0]} and {given[1]}",
            "leave config.data.folds out: the split is that one's",
        )
    return splits


def _check_unseen(splits: dict, segmentation_workdir: str) -> None:
    """UserError where the segmentation was trained on patients that are tested here: its masks of them flatter."""
    trained = splits_lib.members(splits_lib.read_splits(Path(segmentation_workdir) / "splits.json"), "train")
    seen = sorted(set(trained) & set(splits_lib.members(splits, "test")))
    if seen:
        raise UserError(
            f"{segmentation_workdir} was trained on {len(seen)} patients that are tested here ({', '.join(seen[:3])}…)",
            "leave out config.data.folds, or pass a segmentation trained with the same folds and fold",
        )


def read_splits(path: str | Path, config: ml_collections.ConfigDict) -> dict:
    """The splits in a file, if all their patients are in the data."""
    splits = splits_lib.read_splits(path)
    splits_lib.validate_splits(splits, list_patients(config.data)["patient"])
    return splits


def data_folder(config: ml_collections.ConfigDict) -> str:
    """`config.dir`, which must be given."""
    if not config.dir:
        raise UserError("config.data.dir is not set", "pass --config.data.dir=DIR, the folder of the data")
    return config.dir
