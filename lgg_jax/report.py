"""HTML report of one or more runs: scores, learning curves, configs and versions, read from the run directories.

    python -m lgg_jax report --workdir=W [--workdir=W2 …] --output=DIR

Writes DIR/report.html, a self-contained page, and the learning curves as PNG files in DIR/figures. Several runs are
columns of the same tables, for example before and after fine-tuning. If a run has no evaluation yet, the page names
the command that makes it.
"""

from pathlib import Path

from absl import flags

from configs import default
from lgg_jax import config as config_lib
from lgg_jax.errors import UserError
from lgg_jax.pages import report as report_page
from lgg_jax.pages.runs import read_run


def define_flags(flag_values: flags.FlagValues) -> None:
    """Define the flags of the verb `report`."""
    flags.DEFINE_multi_string("workdir", None, "Report on the run in this folder", flag_values=flag_values)
    flags.DEFINE_string("output", None, "Write the page to this folder.", flag_values=flag_values)
    flags.mark_flags_as_required(["workdir", "output"], flag_values)


def main(flag_values: flags.FlagValues) -> int:
    """Run the verb `report`."""
    print(f"written: {report(flag_values.workdir, flag_values.output)}")
    return 0


def report(workdirs: list[str], output) -> Path:
    """Write the page and return its path.

    Raises:
      UserError: a folder is not a run directory, a file in it is broken, or `output` cannot be written.
    """
    folders = list(dict.fromkeys(Path(workdir).absolute() for workdir in workdirs))
    names = [folder.name for folder in folders]
    titles = [folder.name if names.count(folder.name) == 1 else str(folder) for folder in folders]
    runs = [read_run(folder, title) for folder, title in zip(folders, titles, strict=True)]
    figures, path = Path(output) / "figures", Path(output) / "report.html"
    try:
        figures.mkdir(parents=True, exist_ok=True)
        page = report_page.compose(runs, config_lib.fields_of(default.get_config()), figures)
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write to {output} ({error})", "choose another --output") from error
    return path
