"""Is a data folder of any layout whole, and what is odd in it?

    python -m lgg_jax check --data_dir=kaggle_3m

One line per finding. `error`: training would stop or learn something wrong; the exit code is then 1. `odd`: worth
knowing, nothing to mend.
"""

from absl import flags

from lgg_jax.data import dataset
from lgg_jax.data.checks import brats as check_brats
from lgg_jax.data.checks import folder as check_folder
from lgg_jax.data.checks import kaggle as check_kaggle
from lgg_jax.data.checks.findings import Report
from lgg_jax.data.layouts import brats, kaggle
from lgg_jax.data.layouts import folder as plain_folder


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
    layouts = {kaggle: check_kaggle.check, brats: check_brats.check, plain_folder: check_folder.check}
    layouts[dataset.layout(data_dir)](report, data_dir)
    report.compare_patients()
    return report
