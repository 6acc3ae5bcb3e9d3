"""Reading a workdir for the report: config, training log and evaluations.

    run = read_run(Path("runs/cpu"), name="cpu")
    run.evaluations[0].metrics
"""

import contextlib
import dataclasses
import json
from pathlib import Path

import pandas as pd

from configs import seed_paper, seed_paper_classifier, seed_paper_finetune
from lgg_jax import workdir as workdir_lib
from lgg_jax.config import fields_of
from lgg_jax.data import splits as splits_lib
from lgg_jax.errors import UserError

KINDS = ("segmentation", "classification")
AGAIN = "run the command that wrote it again"
# The configs that reproduce the report this project started from, and the scores that the report states for them.
PUBLISHED = (
    (seed_paper, {"Dice": 0.0711}),
    (seed_paper_finetune, {"Dice": 0.3854}),
    (seed_paper_classifier, {"accuracy": 0.8804, "AUC": 0.9543}),
)
_PROTOCOL = (
    "task", "augment.", "loss.", "optimizer.", "model.name", "data.size", "data.crop", "data.context", "data.target",
    "data.tumour_fraction", "data.region", "data.tabular", "data.split_by", "train.start_",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """The files that `evaluate` wrote to eval/NAME.

    Attributes:
      metrics: the content of metrics.json.
      tables: {"cases": cases.csv}; for a joint task also {"grades": grades.csv}.
      cases: the content of figures/cases/cases.json, empty if the file does not exist.
    """

    name: str
    folder: Path
    metrics: dict
    tables: dict[str, pd.DataFrame]
    cases: list[dict]

    def results(self) -> dict[str, dict]:
        """The scores by kind, "segmentation" or "classification". A joint task has both if grades are known."""
        nested = {kind: self.metrics[kind] for kind in KINDS if self.metrics.get(kind)}
        return nested or {self.metrics["task"]: self.metrics}


@dataclasses.dataclass(frozen=True)
class Run:
    """The content of a workdir.

    Attributes:
      name: the name of the folder, or its full path if two runs have the same name.
      config: {field: value}, such as {"data.size": 256}.
      chosen: the content of postprocess.json, None before the end of the training.
      versions: the content of versions.json, None if an older version of lgg_jax started the run.
      log: one row per line of metrics.jsonl, with the column `step` and one column per logged value.
      published: the scores in the report this project started from, for a run with the same protocol.
    """

    name: str
    workdir: Path
    config: dict
    splits: dict
    chosen: dict | None
    versions: dict | None
    log: pd.DataFrame
    evaluations: list[Evaluation]
    published: dict[str, float]


def read_run(workdir: Path, name: str) -> Run:
    """Read the content of a workdir.

    Raises:
      UserError: the folder is not a workdir, or a file in it cannot be read.
    """
    fields = workdir_lib.read_fields(workdir, "pass the --workdir of a training run")
    folders = sorted((path.parent for path in workdir.glob("eval/*/metrics.json")), key=lambda f: (f.name != "test", f))
    return Run(
        name, workdir, fields, splits_lib.read_splits(workdir / "splits.json"),
        read_optional(workdir / "postprocess.json"), read_optional(workdir / "versions.json"),
        read_log(workdir / "logs" / "metrics.jsonl"), list(map(read_evaluation, folders)), published(fields),
    )  # fmt: skip


def read_evaluation(folder: Path) -> Evaluation:
    """Read a folder of eval/."""
    try:
        tables = {name: read_table(folder / f"{name}.csv") for name in ("cases", "grades")
                  if (folder / f"{name}.csv").exists()}  # fmt: skip
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read the tables in {folder} ({error})", AGAIN) from error
    cases = read_optional(folder / "figures" / "cases" / "cases.json") or {"cases": []}
    metrics = workdir_lib.read_json(folder / "metrics.json", AGAIN)
    return Evaluation(folder.name, folder, metrics, tables, cases["cases"])


def read_table(path: Path) -> pd.DataFrame:
    """Read a CSV file. Names stay text, and only empty cells are missing: a patient may be 007, an institution NA."""
    names = {"patient": str, "institution": str}
    return pd.read_csv(path, dtype=names, keep_default_na=False, na_values=[""])


def read_optional(path: Path) -> dict | None:
    """The content of a JSON file, None if the file does not exist."""
    return workdir_lib.read_json(path, AGAIN) if path.exists() else None


def read_log(path: Path) -> pd.DataFrame:
    """The lines of metrics.jsonl; an empty table if the file does not exist."""
    rows = []
    for line in path.read_text().splitlines() if path.exists() else []:
        with contextlib.suppress(ValueError):  # a line is incomplete if the run was killed while writing it
            rows.append(json.loads(line))
    return pd.DataFrame(rows)


def published(config: dict) -> dict[str, float]:
    """The scores that the starting report states for the protocol of `config`, empty for any other protocol.

    The data and the length of the training may differ.
    """
    for module, values in PUBLISHED:
        fields = fields_of(module.get_config())
        compared = [key for key in fields.keys() & config.keys() if key.startswith(_PROTOCOL)]
        if all(fields[key] == config[key] for key in compared):
            return values
    return {}
