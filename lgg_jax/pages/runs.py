"""What the workdir of a run says: its config, how it learnt, and its evaluations.

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
AGAIN = "give the command that wrote it again"
# The configs of the report that this project started from, and what it states of each.
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
      tables: cases.csv by "cases"; of a joint task the grades of grades.csv by "grades".
      cases: the content of figures/cases/cases.json, empty where there is none.
    """

    name: str
    folder: Path
    metrics: dict
    tables: dict[str, pd.DataFrame]
    cases: list[dict]

    def results(self) -> dict[str, dict]:
        """The numbers by kind, "segmentation" or "classification"; of a joint task both, where grades are known."""
        if self.metrics["task"] != "joint":
            return {self.metrics["task"]: self.metrics}
        return {kind: self.metrics[kind] for kind in KINDS if self.metrics[kind]}


@dataclasses.dataclass(frozen=True)
class Run:
    """What a workdir holds.

    Attributes:
      name: the folder's, or its whole path where two have the same.
      config: field → value, such as "data.size" → 256.
      chosen: the content of postprocess.json, None before the training has ended.
      versions: the content of versions.json, None where an older version began the run.
      log: columns `step` and the names of metrics.jsonl, a row a line.
      published: what the report this project started from states of a run with this protocol.
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
    """Everything of a workdir that the page shows; UserError where the folder is none."""
    fields = workdir_lib.read_fields(workdir, "pass the --workdir of a training run")
    found = sorted((path.parent for path in workdir.glob("eval/*/metrics.json")), key=lambda f: (f.name != "test", f))
    return Run(
        name, workdir, fields, splits_lib.read_splits(workdir / "splits.json"),
        read_optional(workdir / "postprocess.json"), read_optional(workdir / "versions.json"),
        read_log(workdir / "logs" / "metrics.jsonl"), [read_evaluation(folder) for folder in found], published(fields),
    )  # fmt: skip


def read_evaluation(folder: Path) -> Evaluation:
    """One of eval/."""
    try:
        tables = {name: read_table(folder / f"{name}.csv") for name in ("cases", "grades")
                  if (folder / f"{name}.csv").exists()}  # fmt: skip
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read the tables in {folder} ({error})", AGAIN) from error
    cases = read_optional(folder / "figures" / "cases" / "cases.json") or {"cases": []}
    metrics = workdir_lib.read_json(folder / "metrics.json", AGAIN)
    return Evaluation(folder.name, folder, metrics, tables, cases["cases"])


def read_table(path: Path) -> pd.DataFrame:
    """Names stay text, and only an empty cell is missing: a patient may be called 007, an institution NA."""
    names = {"patient": str, "institution": str}
    return pd.read_csv(path, dtype=names, keep_default_na=False, na_values=[""])


def read_optional(path: Path) -> dict | None:
    """The content of a JSON file, None where there is none."""
    return workdir_lib.read_json(path, AGAIN) if path.exists() else None


def read_log(path: Path) -> pd.DataFrame:
    """The lines of metrics.jsonl; empty where there is none."""
    rows = []
    for line in path.read_text().splitlines() if path.exists() else []:
        with contextlib.suppress(ValueError):  # only a line that a kill cut short does not parse
            rows.append(json.loads(line))
    return pd.DataFrame(rows)


def published(config: dict) -> dict[str, float]:
    """What is stated of the protocol of `config`; empty unless it is one of those, but for the data and the length."""
    for module, values in PUBLISHED:
        fields = fields_of(module.get_config())
        compared = [key for key in fields.keys() & config.keys() if key.startswith(_PROTOCOL)]
        if all(fields[key] == config[key] for key in compared):
            return values
    return {}
