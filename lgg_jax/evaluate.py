"""A restored checkpoint scored on whole volumes: eval/<name>/metrics.json, cases.csv and figures.

    python -m lgg_jax evaluate --workdir=W [--split=test] [--data_dir=OTHER --split=all] [--name=NAME] [--step=N]

Several --workdir flags, the folds of one training, are scored together: eval/folds of the first.
With --data_dir it is an external validation: any folder in a known layout, with or without clinical values.
"""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd
from absl import flags

from lgg_jax import models, tasks
from lgg_jax import workdir as workdir_lib
from lgg_jax.checkpoints import restore_variables
from lgg_jax.data import dataset
from lgg_jax.data import splits as splits_lib
from lgg_jax.data.cases import Case
from lgg_jax.errors import UserError

SPLITS = ("train", "validation", "test", "all")


def define_flags(flag_values: flags.FlagValues) -> None:
    """Flags of the verb `evaluate`."""
    many = "The training run; several, each with another fold, are scored together."
    flags.DEFINE_multi_string("workdir", None, many, flag_values=flag_values)
    flags.DEFINE_enum("split", "test", SPLITS, "Which patients.", flag_values=flag_values)
    flags.DEFINE_string("data_dir", "", "Another folder than the one trained on.", flag_values=flag_values)
    flags.DEFINE_string("name", "", "Folder under eval/; default: the split's name.", flag_values=flag_values)
    flags.DEFINE_integer("step", None, "Which checkpoint; default: the best on validation.", flag_values=flag_values)
    flags.mark_flags_as_required(["workdir"], flag_values)


def main(flag_values: flags.FlagValues) -> int:
    """The verb `evaluate`."""
    f = flag_values
    if len(f.workdir) > 1:
        if f.data_dir or f.step is not None:
            raise UserError("--data_dir and --step are for one run", "pass one --workdir, or leave them out")
        output = evaluate_folds(f.workdir, f.split, f.name or "folds")
    else:
        output = evaluate(f.workdir[0], f.split, f.data_dir, f.name, f.step)
    print(f"written: {output}/metrics.json, cases.csv, figures/")
    return 0


def evaluate(workdir: str, split: str = "test", data_dir: str = "", name: str = "", step: int | None = None) -> Path:
    """Scores every volume of `split` and returns the folder with the results.

    Args:
      workdir: of the training.
      split: "train", "validation", "test" (of the workdir's splits.json) or "all".
      data_dir: another data set; its patients are in no split, so `split` must then be "all".
      name: of the folder under eval/.
      step: of the checkpoint, None for the best on validation.
    """
    workdir = Path(workdir)
    config = workdir_lib.read_config(workdir)
    task = tasks.get(config.task)
    patients = choose_patients(config, workdir, split, data_dir)
    variables, step = restore_variables(workdir, step)
    predict = task.predictor(models.create_model(config.model), config.eval.batch_size)
    chosen = workdir_lib.read_chosen(workdir, task.CHOSEN)
    preparation = task.preparation(config, workdir)
    cases = load_cases(config, preparation.prepare, patients)
    metrics, tables, draw = task.evaluate(predict, variables, cases, chosen, preparation)
    about = {"task": config.task, "step": step, **about_data(config, workdir, split)}
    output = workdir / "eval" / (name or split)
    write(output, about | task.about(config) | metrics, tables)
    draw(output / "figures")
    print(task.headline(metrics))
    return output


def about_data(config, workdir: Path, split: str) -> dict:
    """What metrics.json says of the patients that were scored."""
    by = splits_lib.read_splits(workdir / "splits.json")["by"]
    return {"dataset": str(config.data.dir), "split": split, "split_by": by}


def load_cases(config, prepare, patients: dict[str, set[int] | None] | None) -> Iterator[Case]:
    """The cases of `patients` (None: all), read one at a time; those without a known label are counted and left out."""
    left_out = 0
    for scan in dataset.load_volumes(config.data, patients):
        case = prepare(scan)
        if case is None:
            left_out += 1
            continue
        if patients is not None:
            case = case.select(splits_lib.rows(patients[scan.patient], case.slice_index))
        if len(case.images):  # a split by slice may leave a patient without any
            yield case
    if left_out:
        print(f"left out, their label is not known: {left_out} patients")


def choose_patients(config, workdir: Path, split: str, data_dir: str) -> dict[str, set[int] | None] | None:
    """The patients to score, as `splits.members` has them, None for all; sets `config.data.dir` where given."""
    if data_dir:
        if split != "all":
            raise UserError(
                f"--split={split} with --data_dir={data_dir}: the splits of the workdir are of its own data",
                "pass --split=all",
            )
        config.data.dir = data_dir
        return None
    if split == "all":
        return None
    splits = splits_lib.read_splits(workdir / "splits.json")
    if splits["by"] == "slice":
        print("this run was split by slice: slices of one patient trained and are tested, which flatters the numbers")
    patients = splits_lib.members(splits, split)
    if not patients:
        raise UserError(f"{workdir}/splits.json has no {split} patients", "choose another --split")
    return patients


def evaluate_folds(workdirs: list[str], split: str, name: str) -> Path:
    """Scores each run on its own `split` and all their patients together; returns the folder with the results.

    The results of all go to eval/<name> of the first run. A patient may be in one of the sets only.
    """
    configs = [workdir_lib.read_config(workdir) for workdir in workdirs]
    if len({(config.task, config.data.get("target")) for config in configs}) > 1:
        raise UserError("the workdirs hold different tasks or targets", "pass the folds of one training")
    members = [set(choose_patients(c, Path(w), split, "") or ()) for c, w in zip(configs, workdirs, strict=True)]
    twice = sorted(a & b for i, a in enumerate(members) for b in members[:i])
    shared = sorted(set().union(*twice)) if twice else []
    if shared or not all(members):
        raise UserError(
            f"patients in the {split} set of two runs: {', '.join(shared[:5]) or 'all'}",
            "pass runs with config.data.folds=K and each another config.data.fold",
        )
    folders = [evaluate(workdir, split) for workdir in workdirs]
    task = tasks.get(configs[0].task)
    metrics, tables, draw = task.pool(folders)
    output = Path(workdirs[0]) / "eval" / name
    about = {"task": configs[0].task, "runs": list(workdirs), **about_data(configs[0], Path(workdirs[0]), split)}
    write(output, about | task.about(configs[0]) | metrics, tables)
    draw(output / "figures")
    print(task.headline(metrics))
    return output


def write(output: Path, metrics: dict, tables: dict[str, pd.DataFrame]) -> None:
    """metrics.json, cases.csv (a row a patient) and what other tables the task has."""
    try:
        (output / "figures").mkdir(parents=True, exist_ok=True)
        workdir_lib.write_json(output / "metrics.json", metrics)
        for name, table in tables.items():
            table.to_csv(output / f"{name}.csv", index=False)
    except OSError as error:
        raise UserError(f"cannot write to {output} ({error})", "free space or mend the folder") from error
