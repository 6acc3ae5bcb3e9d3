"""Integrity checks of a data set: one module per layout, under the name of the layout.

    CHECKS["kaggle"].check(report, "kaggle_3m")         # adds to report.findings
"""

from typing import Protocol

from lgg_jax.data.checks import brats, folder, kaggle
from lgg_jax.data.checks.findings import Report
from lgg_jax.protocols import provides


class Check(Protocol):
    """The interface of an integrity check."""

    def check(self, report: Report, data_dir) -> None:
        """Read every file of the data set once and add missing, unreadable or inconsistent files to the report."""


CHECKS = {name: provides(module, Check) for name, module in
          {"kaggle": kaggle, "brats": brats, "folder": folder}.items()}  # fmt: skip
