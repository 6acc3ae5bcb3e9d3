"""Data set of a config: layout, patients, volumes, and the training, validation and test sets.

    layout("DIR").list_patients("DIR")           # the module of the layout: kaggle, brats or folder
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
    """The module of the layout of data_dir; UserError if the folder does not exist or its layout is unknown."""
    return layouts.find(data_dir)[1]


def load_volumes(config: ml_collections.ConfigDict, patients: Iterable[str] | None = None) -> Iterator[Volume]:
    """Yield the volumes of `config.dir`: all, or those of `patients`. The cache is prepared on first use."""
    data_dir = data_folder(config)
    for scan in layout(data_dir).load_volumes(data_dir, config.cache_dir, patients):
        if lacks_t2(scan.image, config.channels):
            cache.warn_once(f"no t2 sequence, but config.data.channels names it ({data_dir}); FLAIR replaces it")
        yield scan


def load_cases(config, prepare, patients: dict[str, set[int] | None] | None) -> Iterator[Case]:
    """Yield cases, one volume at a time. Patients without a known label are skipped; their number is printed.

    Args:
      config: the whole config.
      prepare: function from a `Volume` to its case, or to None if the label is unknown.
      patients: patients and their slice numbers, as `splits.members` returns them; None reads all.
    """
    skipped = 0
    for scan in load_volumes(config.data, patients):
        case = prepare(scan)
        if case is None:
            skipped += 1
            continue
        if patients is not None:
            case = case.select(splits_lib.rows(patients[scan.patient], case.slice_index))
        if len(case.images):  # in a split by slice, a set may have no slice of a patient
            yield case
    if skipped:
        print(f"skipped {skipped} patients without a known label")


def list_patients(config: ml_collections.ConfigDict) -> pd.DataFrame:
    """One row per patient of `config.dir`: patient, folder, institution, grade."""
    data_dir = data_folder(config)
    return layout(data_dir).list_patients(data_dir)


def version(config: ml_collections.ConfigDict) -> str:
    """Summary of `config.dir`: "lgg_mri 1.0.0, 110 patients, 3,929 slices, fingerprint 0123456789abcdef".

    The fingerprint depends on the path and the file times, so another copy of the same data has another fingerprint.
    """
    data_dir = data_folder(config)
    builder = layout(data_dir).BUILDER
    slices = cache.prepared(builder, data_dir, config.cache_dir).info.splits["slices"].num_examples
    counts = f"{len(list_patients(config))} patients, {slices:,} slices"
    return f"{builder.name} {builder.VERSION}, {counts}, fingerprint {cache.fingerprint(builder, data_dir)}"


def resolve_splits(config: ml_collections.ConfigDict) -> dict:
    """The splits of a new run, from the first source that the config sets.

    The sources, in this order: the run in `config.init_from`, the file `config.data.splits`, the patients named in
    `config.data.validation_patients`, a new split by slice (`config.data.split_by`), the run in
    `config.data.segmentation_workdir` (not with folds), a new split by patient.

    Raises:
      UserError: the config is contradictory, a splits file does not match the data, or the segmentation run was
        trained on test patients.
    """
    splits = _resolve(config)
    if config.data.segmentation_workdir:
        _check_held_out(splits, config.data.segmentation_workdir)
    return splits


def _resolve(config: ml_collections.ConfigDict) -> dict:
    patients = list_patients(config.data)
    if config.init_from:
        # Fine-tuning keeps the split. In a new one, patients of the previous training set could be in the test set.
        return _check_fold(read_splits(Path(config.init_from) / "splits.json", config), config)
    if config.data.splits:
        return _check_fold(read_splits(config.data.splits, config), config)
    if config.data.folds and (config.data.validation_patients or config.data.split_by == "slice"):
        wrong = f"config.data.folds={config.data.folds} with named validation_patients or split_by='slice'"
        raise UserError(f"{wrong} is not possible", "set only one of these fields")
    if config.data.validation_patients:
        return splits_lib.splits_by_validation(patients, config.data.validation_patients)
    fractions = config.data.test_fraction, config.data.validation_fraction
    if config.data.split_by == "slice":
        print("split by slice: slices of one patient are in the training set and in the test set, "
              "so the scores of this run are biased upward")  # fmt: skip
        slices = {scan.patient: scan.slice_index.tolist() for scan in load_volumes(config.data)}
        return splits_lib.make_slice_splits(slices, config.seed, *fractions)
    if config.data.split_by != "patient":
        raise UserError(f"config.data.split_by={config.data.split_by!r} is unknown", "use 'patient' or 'slice'")
    if config.data.segmentation_workdir and not config.data.folds:
        return read_splits(Path(config.data.segmentation_workdir) / "splits.json", config)
    return splits_lib.make_splits(patients, config.seed, *fractions, config.data.folds, config.data.fold)


def _check_fold(splits: dict, config: ml_collections.ConfigDict) -> dict:
    """Return the splits of a file or another run; UserError if the config sets other folds."""
    wanted, actual = (config.data.folds, config.data.fold), (splits.get("folds", 0), splits.get("fold", 0))
    if config.data.folds and wanted != actual:
        source = config.init_from or config.data.splits
        raise UserError(
            f"config.data has folds={wanted[0]} and fold={wanted[1]}, "
            f"but the split of {source} has folds={actual[0]} and fold={actual[1]}",
            "do not set config.data.folds: the folds of the existing split are used",
        )
    return splits


def _check_held_out(splits: dict, segmentation_workdir: str) -> None:
    """Raise UserError if the segmentation run was trained on test patients: its masks of them are optimistic."""
    training = splits_lib.members(splits_lib.read_splits(Path(segmentation_workdir) / "splits.json"), "train")
    leaked = sorted(set(training) & set(splits_lib.members(splits, "test")))
    if leaked:
        count, names = len(leaked), ", ".join(leaked[:3])
        raise UserError(
            f"{segmentation_workdir} was trained on {count} patients that are tested here ({names}…)",
            "do not set config.data.folds, or pass a segmentation run with the same folds and fold",
        )


def read_splits(path: str | Path, config: ml_collections.ConfigDict) -> dict:
    """Read a splits file; UserError if it is invalid or names a patient that is not in the data."""
    splits = splits_lib.read_splits(path)
    splits_lib.validate_splits(splits, list_patients(config.data)["patient"])
    return splits


def data_folder(config: ml_collections.ConfigDict) -> str:
    """Return `config.dir`; UserError if it is not set."""
    if not config.dir:
        raise UserError("config.data.dir is not set", "pass --config.data.dir=DIR, the folder of the data")
    return config.dir
