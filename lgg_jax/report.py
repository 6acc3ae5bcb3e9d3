"""What one or more runs learnt and how well, as one page: everything in it is read from their workdirs.

    python -m lgg_jax report --workdir=W [--workdir=W2 …] --output=DIR

Writes DIR/report.html, which needs nothing else, and the learning curves as PNG in DIR/figures. A run before and one
after fine-tuning stand side by side. What a workdir does not hold yet, the page says how to make.
"""

from pathlib import Path

from absl import flags

from configs import default
from lgg_jax import config as config_lib
from lgg_jax.errors import UserError
from lgg_jax.pages import report as report_page
from lgg_jax.pages.runs import read_run


def define_flags(flag_values: flags.FlagValues) -> None:
    """Flags of the verb `report`."""
    flags.DEFINE_multi_string("workdir", None, "A training run; several stand side by side.", flag_values=flag_values)
    flags.DEFINE_string("output", None, "Folder to write to.", flag_values=flag_values)
    flags.mark_flags_as_required(["workdir", "output"], flag_values)


def main(flag_values: flags.FlagValues) -> int:
    """The verb `report`."""
    print(f"written: {report(flag_values.workdir, flag_values.output)}")
    return 0


def report(workdirs: list[str], output) -> Path:
    """Writes the page and returns its path.

    Raises:
      UserError: a folder is no workdir, a file in it is broken, or `output` cannot be written.
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
