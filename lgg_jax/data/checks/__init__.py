"""The table of integrity checks, a module for each layout, under the layout's name.

    CHECKS["kaggle"].check(report, "kaggle_3m")         # adds to report.findings
"""

from typing import Protocol

from lgg_jax.data.checks import brats, folder, kaggle
from lgg_jax.data.checks.findings import Report
from lgg_jax.protocols import provides


class Check(Protocol):
    """What the verb `check` calls."""

    def check(self, report: Report, data_dir) -> None:
        """Read every file of the data set once and note what is wrong or odd."""


CHECKS = {name: provides(module, Check) for name, module in
          {"kaggle": kaggle, "brats": brats, "folder": folder}.items()}  # fmt: skip
