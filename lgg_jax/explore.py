"""Description of a data set: missing values, distributions, example images and augmentations.

    python -m lgg_jax explore --data_dir=kaggle_3m --output=DIR

Writes DIR/explore.html, a self-contained page, and its figures as PNG files in DIR/figures.
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
    """Define the flags of the verb `explore`."""
    text = "Describe this folder: kaggle_3m layout, BraTS layout, or a folder with images/ and masks/."
    flags.DEFINE_string("data_dir", None, text, flag_values=flag_values, required=True)
    flags.DEFINE_string("output", None, "Write the page to this folder.", flag_values=flag_values, required=True)


def main(flag_values: flags.FlagValues) -> int:
    """Run the verb `explore`."""
    path, cases = explore(flag_values.data_dir, flag_values.output)
    slices, tumour = cases["slices"].sum(), cases["tumour_slices"].sum()
    print(f"{len(cases)} patients, {slices} slices, {tumour} with tumour; see {path}")
    return 0


def explore(data_dir, output) -> tuple[Path, pd.DataFrame]:
    """Write the page and its figures; return the path of the page and the table of patients.

    Raises:
      UserError: there is no data, a file cannot be read, or `output` cannot be written.
    """
    config = default.get_config()
    config.data.dir = str(data_dir)
    folder, path = Path(output) / "figures", Path(output) / "explore.html"
    try:
        folder.mkdir(parents=True, exist_ok=True)  # Fails before the data is read, which takes long.
        result = survey(dataset.load_volumes(config.data))
        path.write_text(explore_page.compose(result, config, folder), encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write to {output} ({error})", "choose another --output") from error
    return path, result.cases
