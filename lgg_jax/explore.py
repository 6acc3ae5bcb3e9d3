"""The data described before anyone trains: what is missing, how it is distributed, what the pictures look like.

    python -m lgg_jax explore --data_dir=kaggle_3m --output=DIR

Writes DIR/explore.html, one page that needs nothing else, and its figures as PNG in DIR/figures.
"""

from pathlib import Path

import pandas as pd
from absl import flags

from configs import default
from lgg_jax.data import dataset
from lgg_jax.data.survey import survey
from lgg_jax.errors import UserError
from lgg_jax.pages import explore as explore_page


def define_flags(flag_values: flags.FlagValues) -> None:
    flags.DEFINE_string("data_dir", None, "Folder of the patient folders.", flag_values=flag_values, required=True)
    flags.DEFINE_string("output", None, "Folder to write to.", flag_values=flag_values, required=True)


def main(flag_values: flags.FlagValues) -> int:
    path, cases = explore(flag_values.data_dir, flag_values.output)
    slices, tumour = cases["slices"].sum(), cases["tumour_slices"].sum()
    print(f"{len(cases)} patients, {slices} slices, {tumour} with tumour; see {path}")
    return 0


def explore(data_dir, output) -> tuple[Path, pd.DataFrame]:
    """Writes the page and its figures; returns the path of the page and the table of patients.

    Raises:
      UserError: there is no data, it cannot be read, or `output` cannot be written.
    """
    config = default.get_config()
    config.data.dir = str(data_dir)
    folder, path = Path(output) / "figures", Path(output) / "explore.html"
    try:
        folder.mkdir(parents=True, exist_ok=True)  # before the long reading
        found = survey(dataset.load_volumes(config.data))
        path.write_text(explore_page.compose(found, config, folder), encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write to {output} ({error})", "choose another --output") from error
    return path, found.cases
