"""A restored checkpoint scored on whole volumes: eval/<name>/metrics.json, cases.csv and figures.

    python -m lgg_jax evaluate --workdir=W [--split=test] [--data_dir=OTHER --split=all] [--name=NAME] [--step=N]

With --data_dir it is an external validation: any folder in the kaggle_3m layout, with or without clinical values.
"""

from pathlib import Path

import pandas as pd
from absl import flags

from lgg_jax import inference, models, tasks
from lgg_jax import workdir as workdir_lib
from lgg_jax.checkpoints import restore_variables
from lgg_jax.data import dataset
from lgg_jax.data import splits as splits_lib
from lgg_jax.errors import UserError

SPLITS = ("train", "validation", "test", "all")


def define_flags(flag_values: flags.FlagValues) -> None:
    """Flags of the verb `evaluate`."""
    flags.DEFINE_string("workdir", None, "The training run.", flag_values=flag_values)
    flags.DEFINE_enum("split", "test", SPLITS, "Which patients.", flag_values=flag_values)
    flags.DEFINE_string("data_dir", "", "Another folder than the one trained on.", flag_values=flag_values)
    flags.DEFINE_string("name", "", "Folder under eval/; default: the split's name.", flag_values=flag_values)
    flags.DEFINE_integer("step", None, "Which checkpoint; default: the best on validation.", flag_values=flag_values)
    flags.mark_flags_as_required(["workdir"], flag_values)


def main(flag_values: flags.FlagValues) -> int:
    """The verb `evaluate`."""
    f = flag_values
    output = evaluate(f.workdir, f.split, f.data_dir, f.name, f.step)
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
    predict = inference.make_predictor(models.create_model(config.model), config.eval.batch_size)
    chosen = read_postprocessing(workdir)
    cases = (inference.prepare_case(scan, config.data) for scan in dataset.load_volumes(config.data, patients))
    metrics, table, draw = task.evaluate(predict, variables, cases, chosen)
    about = {"task": config.task, "step": step, "dataset": str(config.data.dir), "split": split}
    output = workdir / "eval" / (name or split)
    write(output, about | metrics, table)
    draw(output / "figures")
    print(task.headline(metrics))
    return output


def choose_patients(config, workdir: Path, split: str, data_dir: str) -> list[str] | None:
    """Ids of the patients to score, None for all; points `config.data.dir` to `data_dir` where given."""
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
    patients = splits_lib.read_splits(workdir / "splits.json")[split]
    if not patients:
        raise UserError(f"{workdir}/splits.json has no {split} patients", "choose another --split")
    return patients


def read_postprocessing(workdir: Path) -> inference.Postprocessing:
    """What the training chose on validation."""
    content = workdir_lib.read_json(workdir / "postprocess.json", "let the training end first: give its command again")
    fields = ("flip_tta", "largest_component", "threshold")
    return inference.Postprocessing(**{field: content[field] for field in fields})


def write(output: Path, metrics: dict, table: pd.DataFrame) -> None:
    """metrics.json and cases.csv, one row a patient."""
    try:
        (output / "figures").mkdir(parents=True, exist_ok=True)
        workdir_lib.write_json(output / "metrics.json", metrics)
        table.to_csv(output / "cases.csv", index=False)
    except OSError as error:
        raise UserError(f"cannot write to {output} ({error})", "free space or mend the folder") from error
