"""Is a data folder of any layout whole, and what is odd in it?

    python -m lgg_jax check --data_dir=kaggle_3m

One line per finding. `error`: training would stop or learn something wrong; the exit code is then 1. `odd`: worth
knowing, nothing to mend.
"""

from absl import flags

from lgg_jax.data import layouts
from lgg_jax.data.checks import CHECKS
from lgg_jax.data.checks.findings import Report


def define_flags(flag_values: flags.FlagValues) -> None:
    about = "Folder in the kaggle_3m or the BraTS layout, or one of images/ and masks/."
    flags.DEFINE_string("data_dir", None, about, flag_values=flag_values, required=True)


def main(flag_values: flags.FlagValues) -> int:
    report = check(flag_values.data_dir)
    for severity, line in report.findings:
        print(f"{severity:5}  {line}")
    print(f"{report.patients} patients, {report.slices} slices, {report.with_tumour} with tumour; "
          f"{report.count('error')} errors, {report.count('odd')} odd")  # fmt: skip
    return 1 if report.count("error") else 0


def check(data_dir) -> Report:
    """Reads every file of the data set once. UserError when there is no such folder, or no patient in it."""
    report = Report()
    name, _ = layouts.find(data_dir)
    CHECKS[name].check(report, data_dir)
    report.find_duplicates()
    return report
