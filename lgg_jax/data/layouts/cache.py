"""What the data sets share: the TFDS builder of slices, where it is cached, and volumes read back from it.

    builder = prepared(LggMri, "kaggle_3m")         # tfds builder; prepared once, then found again by fingerprint
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

    `channels` is None where it differs by data set. The mask is (0, 0, 1) where nobody has drawn one.
    A missing clinical value is 0 in `clinical` and False in `clinical_known`.
    """
    raw = tfds.features.Encoding.BYTES  # compressed is a third of the size and takes three times as long to prepare
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
    """Key and example of each slice of a volume, in order."""
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
    """A data set with one example a slice. A layout gives `name`, `VERSION`, what follows, and two functions:

    `source_files(data_dir)`, the paths that a prepared copy depends on, and `read_volumes(data_dir)`, the volumes.
    """

    IMAGE_DTYPE = np.uint8
    IMAGE_CHANNELS: int | None = 3
    ABOUT: ClassVar[dict[str, str]] = {}  # description, homepage and citation

    def _info(self) -> tfds.core.DatasetInfo:
        features = slice_features(self.IMAGE_DTYPE, self.IMAGE_CHANNELS)
        return tfds.core.DatasetInfo(builder=self, features=features, disable_shuffling=True, **self.ABOUT)

    def _split_generators(self, dl_manager):
        # One split: which patients train and which test is a file of ours (data/splits.py).
        return {"slices": self._generate_examples(dl_manager.manual_dir)}

    def _generate_examples(self, data_dir):
        for volume in self.read_volumes(data_dir):
            yield from slice_examples(volume)


def patient_table(data_dir, patients: list[str], folders: list[Path], grades: list[float | None]) -> pd.DataFrame:
    """What each layout's `list_patients` returns; UserError where a patient has two folders."""
    for patient, count in collections.Counter(patients).items():
        if count > 1:
            raise UserError(f"{data_dir} holds {count} folders of patient {patient}", "keep one of them")
    return pd.DataFrame({
        "patient": patients,
        "folder": [str(folder) for folder in folders],
        "institution": [institution(patient) for patient in patients],
        "grade": pd.array(grades, dtype="Float64"),
    })


def unpaired(images: dict, masks: dict) -> Iterator[UserError]:
    """An error for each image without its mask, and the reverse; both are files by slice."""
    for index in sorted(images.keys() ^ masks.keys()):
        path, other = (images[index], "mask") if index in images else (masks[index], "image")
        yield UserError(f"{path} has no {other}", "restore the missing file or remove this one")


@functools.cache
def warn_once(message: str) -> None:
    """Logs a warning the first time: the data set is opened several times in a run."""
    logging.warning(message)


def prepared(builder_class, data_dir, cache_dir="") -> tfds.core.DatasetBuilder:
    """A builder whose data is on disk, prepared if it was not.

    Each state of each source folder has a cache folder of its own. A preparation works in a private sibling that is
    renamed when whole, so one that is killed, or runs beside another, leaves nothing half done.

    Args:
      builder_class: a TFDS builder with `source_files(data_dir)`.
      data_dir: the manual folder.
      cache_dir: where prepared data is kept; else $LGG_JAX_CACHE, else ~/.cache/lgg_jax.

    Raises:
      UserError: from reading the source, or when the disk is full.
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
                raise UserError(wrong, f"free space there or set {another} to a folder on another disk") from error
            raise
    return builder_class(data_dir=final)


def fingerprint(builder_class, data_dir) -> str:
    """16 hexadecimal digits that change with the builder's version, the folder, and any source file's size or time."""
    data_dir = Path(data_dir).resolve()
    digest = hashlib.sha256(f"{builder_class.VERSION} {data_dir}".encode())
    for path in sorted(builder_class.source_files(data_dir)):
        stat = path.stat()
        digest.update(f"\n{path.relative_to(data_dir)} {stat.st_size} {stat.st_mtime_ns}".encode())
    return digest.hexdigest()[:16]


def _prepare(builder_class, data_dir, final: Path) -> None:
    final.parent.mkdir(parents=True, exist_ok=True)
    # What killed preparations left; the cache may be a folder that other programs keep theirs in.
    for stale in final.parent.glob(f".{builder_class.name}-{'[0-9a-f]' * 16}-????????"):
        if time.time() - stale.stat().st_mtime > 86400:
            shutil.rmtree(stale, ignore_errors=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{final.name}-", dir=final.parent))
    try:
        config = tfds.download.DownloadConfig(manual_dir=Path(data_dir).resolve(), try_download_gcs=False)
        with _quiet():
            builder_class(data_dir=temporary).download_and_prepare(download_config=config)
        temporary.chmod(0o755)  # mkdtemp's 0o700 would lock a shared cache
        try:
            temporary.rename(final)
        except OSError:
            if not final.is_dir():  # else another process was first, with the same content
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def _quiet():
    """TFDS notes nothing below an error, and shows progress only to somebody at a terminal."""
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
    """Volumes of a source folder, prepared on first use, in the order of the data set.

    Args:
      patients: ids to read; all when None. An id that is not there raises UserError.
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
        raise UserError(f"no such patient in {data_dir}: {', '.join(sorted(wanted - seen))}", "make new splits")


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
