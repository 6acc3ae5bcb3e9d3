"""The table of data layouts: how a data set lies on disk, and the module that reads it.

    name, module = find("kaggle_3m")            # ("kaggle", the module kaggle)
    module.list_patients("kaggle_3m")           # DataFrame: patient, folder, institution, grade

To add a layout: write a module with everything that `Layout` declares, add it to `LAYOUTS`, write its integrity check
under the same name in data/checks, and add a test. A module that lacks something fails when this package is imported.
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
    """What the data set, `check` and `explore` call of a layout."""

    LOOKS_FOR: str  # the files by which it is recognised, for a message
    BUILDER: type[cache.SliceBuilder]  # prepares the data set for TFDS

    def found(self, data_dir) -> bool:
        """Return whether data_dir holds this layout."""

    def list_patients(self, data_dir) -> pd.DataFrame:
        """Return a row a patient: patient, folder, institution, grade. No pixel is read."""

    def load_volumes(self, data_dir, cache_dir: str, patients: Iterable[str] | None) -> Iterator[Volume]:
        """Return the volumes of these patients (None: all), prepared in the cache on first use."""


# A folder may hold several layouts: the first that is found is read.
LAYOUTS = {name: provides(module, Layout) for name, module in
           {"kaggle": kaggle, "brats": brats, "folder": folder}.items()}  # fmt: skip


def find(data_dir) -> tuple[str, Layout]:
    """The name and the module of the layout in data_dir.

    Raises:
      UserError: there is no such folder, or it holds no known layout.
    """
    if not Path(data_dir).is_dir():
        raise UserError(f"no such folder: {data_dir}", "pass the folder that holds the patient folders, or images/")
    for name, module in LAYOUTS.items():
        if module.found(data_dir):
            return name, module
    looked_for = "; ".join(module.LOOKS_FOR for module in LAYOUTS.values())
    raise UserError(f"no patient folders in {data_dir}, and no images/", f"looked for {looked_for}")
