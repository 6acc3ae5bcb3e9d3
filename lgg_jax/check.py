"""Integrity checks of a data folder: missing, unreadable and inconsistent files.

    python -m lgg_jax check --data_dir=kaggle_3m

Each finding is one line with its severity. `error`: training would stop or learn something wrong, and the exit code
is 1. `odd`: unusual, but training works.
"""

from absl import flags

from lgg_jax.data import layouts
from lgg_jax.data.checks import CHECKS
from lgg_jax.data.checks.findings import Report


def define_flags(flag_values: flags.FlagValues) -> None:
    """Define the flags of the verb `check`."""
    text = "Check this folder: kaggle_3m layout, BraTS layout, or a folder with images/ and masks/."
    flags.DEFINE_string("data_dir", None, text, flag_values=flag_values, required=True)


def main(flag_values: flags.FlagValues) -> int:
    """Run the verb `check`; return 1 if there are errors in the data, otherwise 0."""
    report = check(flag_values.data_dir)
    for severity, line in report.findings:
        print(f"{severity:5}  {line}")
    print(f"{report.patients} patients, {report.slices} slices, {report.with_tumour} with tumour; "
          f"{report.count('error')} errors, {report.count('odd')} odd")  # fmt: skip
    return 1 if report.count("error") else 0


def check(data_dir) -> Report:
    """Read every file of a data set once and return the findings.

    Raises:
      UserError: the folder does not exist or has no patient.
    """
    report = Report()
    name, _ = layouts.find(data_dir)
    CHECKS[name].check(report, data_dir)
    report.find_duplicates()
    return report
