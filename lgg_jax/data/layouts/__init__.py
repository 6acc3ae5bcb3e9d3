"""Data layouts: the directory structures that can be read, and the module for each.

    name, module = find("kaggle_3m")            # ("kaggle", the module kaggle)
    module.list_patients("kaggle_3m")           # DataFrame: patient, folder, institution, grade

To add a layout: write a module with everything that `Layout` declares, add it to `LAYOUTS`, write its integrity check
under the same name in data/checks, and add a test. If a module is incomplete, the import of this package fails.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Protocol

import pandas as pd

from lgg_jax.data.layouts import brats, cache, folder, kaggle
from lgg_jax.data.volume import Volume
from lgg_jax.errors import UserError
from lgg_jax.protocols import provides


class Layout(Protocol):
    """The interface of a layout module."""

    EXPECTED_FILES: str  # the files that identify the layout, for a message
    BUILDER: type[cache.SliceBuilder]  # TFDS builder of the data set

    def matches(self, data_dir) -> bool:
        """Return whether data_dir has this layout."""

    def list_patients(self, data_dir) -> pd.DataFrame:
        """Return one row per patient: patient, folder, institution, grade. No pixel is read."""

    def load_volumes(self, data_dir, cache_dir: str, patients: Iterable[str] | None) -> Iterator[Volume]:
        """Return the volumes of `patients` (None: all). The cache is prepared on first use."""


# If a folder matches several layouts, the first one is used.
LAYOUTS = {name: provides(module, Layout) for name, module in
           {"kaggle": kaggle, "brats": brats, "folder": folder}.items()}  # fmt: skip


def find(data_dir) -> tuple[str, Layout]:
    """Return the name and the module of the layout of data_dir.

    Raises:
      UserError: the folder does not exist, or its layout is unknown.
    """
    if not Path(data_dir).is_dir():
        raise UserError(f"no such folder: {data_dir}", "pass the folder that holds the patient folders, or images/")
    for name, module in LAYOUTS.items():
        if module.matches(data_dir):
            return name, module
    expected = "; ".join(module.EXPECTED_FILES for module in LAYOUTS.values())
    raise UserError(f"no patient folders in {data_dir} and no folder images/", f"pass a folder with one of: {expected}")
