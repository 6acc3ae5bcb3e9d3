"""Cache of prepared data: the TFDS builder that all layouts share, and the reader of its volumes.

    builder = prepared(LggMri, "kaggle_3m")         # TFDS builder; prepared once, then identified by its fingerprint
    for volume in load_volumes(LggMri, "kaggle_3m"):
        ...
"""

import collections
import contextlib
import functools
import hashlib
import itertools
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd
import tensorflow_datasets as tfds
from absl import logging

from lgg_jax.data.clinical import FIELDS, institution
from lgg_jax.data.volume import Volume
from lgg_jax.errors import UserError, disk_full


def slice_features(image_dtype, channels: int | None) -> tfds.features.FeaturesDict:
    """Features of one slice: image (height, width, channel), mask (height, width, 1) uint8 {0, 1}, patient, clinical.

    A slice without a ground-truth mask has a mask of shape (0, 0, 1). A missing clinical value is 0 in `clinical` and
    False in `clinical_known`.

    Args:
      image_dtype: NumPy dtype of the image.
      channels: number of channels; None if it depends on the data set.
    """
    raw = tfds.features.Encoding.BYTES  # compression would save two thirds of the space but triple the preparation time
    return tfds.features.FeaturesDict({
        "image": tfds.features.Tensor(shape=(None, None, channels), dtype=image_dtype, encoding=raw),
        "mask": tfds.features.Tensor(shape=(None, None, 1), dtype=np.uint8, encoding=raw),
        "patient": tfds.features.Text(),
        "institution": tfds.features.Text(),
        "slice_index": np.int32,
        "num_slices": np.int32,
        "clinical": {field: np.float32 for field in FIELDS},
        "clinical_known": {field: np.bool_ for field in FIELDS},
    })


def slice_examples(volume: Volume) -> Iterator[tuple[str, dict]]:
    """Yield the key and the example of each slice of a volume, in order."""
    values = {field: volume.clinical.get(field) for field in FIELDS}
    shared = {
        "patient": volume.patient,
        "institution": institution(volume.patient),
        "num_slices": len(volume.image),
        "clinical": {field: 0.0 if value is None else value for field, value in values.items()},
        "clinical_known": {field: value is not None for field, value in values.items()},
    }
    masks = np.zeros((len(volume.image), 0, 0)) if volume.mask is None else volume.mask
    for index, image, mask in zip(volume.slice_index, volume.image, masks, strict=True):
        pixels = {"image": image, "mask": mask[..., None].astype(np.uint8), "slice_index": index}
        yield f"{volume.patient}/{index:03d}", shared | pixels


class SliceBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """TFDS builder with one example per slice.

    A layout's subclass defines `name`, `VERSION`, the attributes below and two functions: `source_files(data_dir)`
    returns the paths that a prepared copy depends on, `read_volumes(data_dir)` the volumes.
    """

    IMAGE_DTYPE = np.uint8
    IMAGE_CHANNELS: int | None = 3
    ABOUT: ClassVar[dict[str, str]] = {}  # description, homepage and citation

    def _info(self) -> tfds.core.DatasetInfo:
        features = slice_features(self.IMAGE_DTYPE, self.IMAGE_CHANNELS)
        return tfds.core.DatasetInfo(builder=self, features=features, disable_shuffling=True, **self.ABOUT)

    def _split_generators(self, dl_manager):
        # A single TFDS split: the training, validation and test sets are defined in splits.json (data/splits.py).
        return {"slices": self._generate_examples(dl_manager.manual_dir)}

    def _generate_examples(self, data_dir):
        for volume in self.read_volumes(data_dir):
            yield from slice_examples(volume)


def patient_table(data_dir, patients: list[str], folders: list[Path], grades: list[float | None]) -> pd.DataFrame:
    """The table that `list_patients` of every layout returns; UserError if a patient has two folders."""
    for patient, count in collections.Counter(patients).items():
        if count > 1:
            raise UserError(f"patient {patient} has {count} folders ({data_dir})", "keep one of them")
    return pd.DataFrame({
        "patient": patients,
        "folder": [str(folder) for folder in folders],
        "institution": [institution(patient) for patient in patients],
        "grade": pd.array(grades, dtype="Float64"),
    })


def unpaired(images: dict, masks: dict) -> Iterator[UserError]:
    """Yield an error for each image without a mask and each mask without an image.

    Args:
      images, masks: files by slice.
    """
    for index in sorted(images.keys() ^ masks.keys()):
        path, other = (images[index], "mask") if index in images else (masks[index], "image")
        yield UserError(f"{path} has no {other}", "restore the missing file or remove this file")


@functools.cache
def warn_once(message: str) -> None:
    """Log a warning unless it has been logged before: a run opens the data set several times."""
    logging.warning(message)


def prepared(builder_class, data_dir, cache_dir="") -> tfds.core.DatasetBuilder:
    """Return a builder whose data is on disk. Prepare the data first if the cache does not have it.

    Each state of each source folder has its own cache folder. The data is prepared in a temporary folder beside it,
    which is renamed at the end. Therefore a process that is killed, or a second one that prepares the same data, never
    leaves an incomplete cache folder.

    Args:
      builder_class: a TFDS builder with `source_files(data_dir)`.
      data_dir: the folder of the source files ("manual folder" in TFDS).
      cache_dir: folder of the prepared data; if empty, $LGG_JAX_CACHE or else ~/.cache/lgg_jax.

    Raises:
      UserError: a source file cannot be read, or the cache cannot be written.
    """
    cache = Path(cache_dir or os.environ.get("LGG_JAX_CACHE") or "~/.cache/lgg_jax").expanduser()
    final = cache / f"{builder_class.name}-{fingerprint(builder_class, data_dir)}"
    if not final.is_dir():
        try:
            _prepare(builder_class, data_dir, final)
        except Exception as error:
            if isinstance(error, OSError) or disk_full(error):
                wrong = f"cannot write prepared data to {cache} ({str(error).splitlines()[0]})"
                another = "config.data.cache_dir" if cache_dir else "LGG_JAX_CACHE"
                raise UserError(wrong, f"free disk space or set {another} to a folder on another disk") from error
            raise
    return builder_class(data_dir=final)


def fingerprint(builder_class, data_dir) -> str:
    """16 hexadecimal digits: a hash of the builder's version, the folder, and each source file's size and time."""
    data_dir = Path(data_dir).resolve()
    digest = hashlib.sha256(f"{builder_class.VERSION} {data_dir}".encode())
    for path in sorted(builder_class.source_files(data_dir)):
        stat = path.stat()
        digest.update(f"\n{path.relative_to(data_dir)} {stat.st_size} {stat.st_mtime_ns}".encode())
    return digest.hexdigest()[:16]


def _prepare(builder_class, data_dir, final: Path) -> None:
    final.parent.mkdir(parents=True, exist_ok=True)
    # Remove the temporary folders of killed preparations. The pattern is strict, as the cache may hold other files.
    for stale in final.parent.glob(f".{builder_class.name}-{'[0-9a-f]' * 16}-????????"):
        if time.time() - stale.stat().st_mtime > 86400:
            shutil.rmtree(stale, ignore_errors=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{final.name}-", dir=final.parent))
    try:
        config = tfds.download.DownloadConfig(manual_dir=Path(data_dir).resolve(), try_download_gcs=False)
        with _quiet():
            builder_class(data_dir=temporary).download_and_prepare(download_config=config)
        temporary.chmod(0o755)  # mkdtemp's 0o700 would lock out the other users of a shared cache
        try:
            temporary.rename(final)
        except OSError:
            if not final.is_dir():  # otherwise another process has prepared the same data
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def _quiet():
    """Make TFDS log errors only, and show its progress bars only on a terminal."""
    verbosity, terminal = logging.get_verbosity(), sys.stderr.isatty()
    logging.set_verbosity(logging.ERROR)
    if not terminal:
        tfds.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(sys.stderr if terminal else None):
            yield
    finally:
        logging.set_verbosity(verbosity)
        tfds.enable_progress_bar()


def load_volumes(builder_class, data_dir, cache_dir="", patients=None) -> Iterator[Volume]:
    """Yield the volumes of a source folder, in the order of the data set. The cache is prepared on first use.

    Args:
      builder_class, data_dir, cache_dir: as for `prepared`.
      patients: ids of the patients to read; None reads all.

    Raises:
      UserError: a patient is not in the data, or as for `prepared`.
    """
    builder = prepared(builder_class, data_dir, cache_dir)
    with _quiet():
        data = builder.as_dataset(split="all")
    wanted = None if patients is None else set(patients)
    seen = set()
    for name, examples in itertools.groupby(data.as_numpy_iterator(), lambda example: example["patient"].decode()):
        if wanted is None or name in wanted:
            seen.add(name)
            yield _volume(name, list(examples))
    if wanted is not None and wanted - seen:
        raise UserError(f"no such patient in {data_dir}: {', '.join(sorted(wanted - seen))}", "make a new split")


def _volume(patient: str, examples: list[dict]) -> Volume:
    known = examples[0]["clinical_known"]
    mask = np.stack([example["mask"][..., 0] > 0 for example in examples])
    return Volume(
        patient=patient,
        image=np.stack([example["image"] for example in examples]),
        mask=mask if mask.size else None,
        slice_index=np.array([example["slice_index"] for example in examples], np.int32),
        clinical={field: float(examples[0]["clinical"][field]) if known[field] else None for field in FIELDS},
    )
