"""Evaluation of a checkpoint on whole volumes: eval/<name>/metrics.json, cases.csv and figures.

    python -m lgg_jax evaluate --workdir=W [--split=test] [--data_dir=OTHER --split=all] [--name=NAME] [--step=N]

External validation: --data_dir=OTHER --split=all scores any data set in a known layout, with or without clinical
values.

Several runs: repeat --workdir. The scores go to eval/folds or eval/ensemble in the first run directory. Runs with
different held-out patients are the folds of one cross-validation: each run scores its own held-out patients. Runs with
the same held-out patients are an ensemble: its masks are those that `predict` computes with these runs. With
--split=all, several runs are always an ensemble.
"""

from pathlib import Path

import tqdm
from absl import flags

from lgg_jax import segmenter, tasks
from lgg_jax import workdir as workdir_lib
from lgg_jax.data import dataset
from lgg_jax.data import splits as splits_lib
from lgg_jax.errors import UserError
from lgg_jax.tasks import segmentation
from lgg_jax.tasks.results import Results

SPLITS = ("train", "validation", "test", "all")


def define_flags(flag_values: flags.FlagValues) -> None:
    """Define the flags of the verb `evaluate`."""
    text = "Score the run in this folder; several runs are scored as folds or as an ensemble"
    flags.DEFINE_multi_string("workdir", None, text, flag_values=flag_values)
    flags.DEFINE_enum("split", "test", SPLITS, "Score the patients of this split.", flag_values=flag_values)
    text = "Read the data from this folder; empty means the folder that the run was trained on."
    flags.DEFINE_string("data_dir", "", text, flag_values=flag_values)
    text = "Write to eval/NAME; empty means the name of the split, or for several runs folds or ensemble."
    flags.DEFINE_string("name", "", text, flag_values=flag_values)
    text = "Score the checkpoint of this step; None means the best step on the validation set."
    flags.DEFINE_integer("step", None, text, flag_values=flag_values)
    flags.mark_flags_as_required(["workdir"], flag_values)


def main(flag_values: flags.FlagValues) -> int:
    """Run the verb `evaluate`."""
    f = flag_values
    if len(f.workdir) > 1:
        if f.step is not None:
            raise UserError("--step is for one run", "pass one --workdir, or leave it out")
        output = evaluate_together(f.workdir, f.split, f.data_dir, f.name)
    else:
        output = evaluate(f.workdir[0], f.split, f.data_dir, f.name, f.step)
    print(f"written: {output}/metrics.json, cases.csv, figures/")
    return 0


def evaluate(workdir: str, split: str = "test", data_dir: str = "", name: str = "", step: int | None = None) -> Path:
    """Score every volume of `split` and return the folder with the results.

    Args:
      workdir: the run directory.
      split: "train", "validation" or "test" of the run's splits.json, or "all".
      data_dir: the folder of the data; "" for the folder that the run was trained on. With `split` "all" it may be
        another data set.
      name: the folder under eval/; "" for the name of the split.
      step: the step of the checkpoint; None for the best step on the validation set.
    """
    workdir = Path(workdir)
    config = workdir_lib.read_config(workdir)
    task = tasks.get(config.task)
    patients = choose_patients(config, workdir, split, data_dir)
    requested = {"split": split, "dataset": config.data.dir} | ({} if step is None else {"step": step})
    output = output_folder(workdir, name, split, requested)
    run = segmenter.restore(workdir, config, step)
    preparation = task.preparation(config, workdir, segmenter.predicted_masks(config), None)
    cases = dataset.load_cases(config, preparation.prepare, patients)
    results = task.evaluate(run.predictor(), run.variables, cases, run.chosen, preparation)
    about = {"step": run.step, **about_data(config, [workdir], split, results)}
    write(output, about | task.about(config), results)
    print(task.headline(results.metrics))
    return output


def output_folder(workdir: Path, name: str, default: str, requested: dict) -> Path:
    """Return the folder for the scores: eval/<name or default>.

    Args:
      workdir: the run directory.
      name: the folder that the user chose; its scores may be overwritten. "" means `default`.
      default: the folder otherwise; only scores of the same evaluation may be overwritten.
      requested: identifies the evaluation by keys of metrics.json: `split`, `dataset`, `runs` if there are several,
        and `step` if the user chose one. Without `step`, the scores of a new best step may replace earlier ones.

    Raises:
      UserError: the default folder holds the scores of another evaluation.
    """
    output = workdir / "eval" / (name or default)
    if name or not (output / "metrics.json").exists():
        return output
    before = workdir_lib.read_json(output / "metrics.json", "remove it, or pass --name=NAME")
    old, new = _identity(before, requested), _identity(requested, requested)
    differing = [key for key in new if old[key] != new[key]]
    if differing:
        listing = ", ".join(f"{key} {before.get(key)}, not {requested[key]}" for key in differing)
        raise UserError(f"{output} holds other scores ({listing})", "pass --name=NAME to keep both")
    return output


def _identity(scores: dict, requested: dict) -> dict:
    """Return the entries of `scores` that `requested` also has, in a form that can be compared.

    The data folder is compared only for the split "all", because the other splits name their patients. Two paths of
    the same folder are equal. The order of the runs is ignored.

    Args:
      scores: the content of a metrics.json.
      requested: as in `output_folder`.
    """
    identity = {key: scores.get(key) for key in requested if key != "dataset" or requested["split"] == "all"}
    if "dataset" in identity:
        identity["dataset"] = Path(identity["dataset"] or "").resolve()
    if "runs" in identity:
        identity["runs"] = sorted(Path(run).resolve() for run in identity["runs"] or ())
    return identity


def about_data(config, workdirs: list[Path], split: str, results: Results) -> dict:
    """Return the entries of metrics.json on the data, and print a line if a run was trained or validated on it.

    Args:
      config: the config of the first run.
      workdirs: the run directories.
      split: the scored split.
      results: the scores of the patients.
    """
    splits = [splits_lib.read_splits(workdir / "splits.json") for workdir in workdirs]
    about = {"task": config.task, "dataset": str(config.data.dir), "split": split, "split_by": splits[0]["by"]}
    if split != "all":
        return about
    used = set().union(*(splits_lib.members(each, name) for each in splits for name in ("train", "validation")))
    scored = set(results.tables["cases"]["patient"])
    leaked = len(scored & used)
    if leaked:
        print(f"{leaked} of {len(scored)} patients were used for training or validation: the scores are biased upward")
    return about | {"patients_trained_or_validated_on": leaked}


def choose_patients(config, workdir: Path, split: str, data_dir: str) -> dict[str, set[int] | None] | None:
    """Return the patients to score, in the form of `splits.members`; None for all.

    Sets `config.data.dir` to `data_dir` unless that is empty.

    Raises:
      UserError: the split is empty, or the data folder lacks some of its patients.
    """
    config.data.dir = data_dir or config.data.dir
    if split == "all":
        return None
    splits = splits_lib.read_splits(workdir / "splits.json")
    if splits["by"] == "slice":
        print("split by slice: training and test slices come from the same patients, so the scores are biased upward")
    patients = splits_lib.members(splits, split)
    if not patients:
        raise UserError(f"{workdir}/splits.json has no {split} patients", "choose another --split")
    missing = sorted(set(patients) - set(dataset.list_patients(config.data)["patient"]))
    if missing:
        raise UserError(
            f"{config.data.dir} lacks {len(missing)} of the {split} patients of {workdir} ({', '.join(missing[:3])})",
            "pass the folder that it was trained on as --data_dir, or --split=all to score another data set",
        )
    return patients


def evaluate_together(workdirs: list[str], split: str, data_dir: str = "", name: str = "") -> Path:
    """Score several runs and return the folder with the results.

    Runs with the same patients in `split` are an ensemble. Otherwise they are the folds of one cross-validation.
    """
    paths = [Path(workdir) for workdir in workdirs]
    if len({path.resolve() for path in paths}) < len(paths):
        raise UserError("one --workdir is given twice", "pass each once")
    configs = [workdir_lib.read_config(path) for path in paths]
    patients = [choose_patients(*run, split, data_dir) for run in zip(configs, paths, strict=True)]
    if all(each == patients[0] for each in patients):
        if any("mask" not in tasks.get(config.task).OUTPUTS for config in configs):
            raise UserError("only segmentation runs are scored as an ensemble", "pass each run alone")
        return evaluate_ensemble(paths, configs[0], split, patients[0], name)
    if len({(config.task, config.data.get("target")) for config in configs}) > 1:
        raise UserError("the workdirs hold different tasks or targets", "pass the folds of one training")
    return evaluate_folds(paths, configs[0], split, [set(each) for each in patients], data_dir, name)


def evaluate_ensemble(workdirs: list[Path], config, split: str, patients: dict | None, name: str) -> Path:
    """Score the masks that `predict` computes with these runs; return the folder with the results.

    Args:
      workdirs: the run directories of the ensemble.
      config: the config of the first run; its `data.dir` is the data set.
      split: the split that `patients` belong to.
      patients: the patients to score; None for all of the data set.
      name: the folder under eval/ of the first run; "" for "ensemble".
    """
    runs = list(map(str, workdirs))
    output = output_folder(workdirs[0], name, "ensemble", {"split": split, "dataset": config.data.dir, "runs": runs})
    ensemble = segmenter.load_segmenter(workdirs)
    scans = dataset.load_volumes(config.data, patients)
    scores = segmentation.VolumeScores()
    for scan in tqdm.tqdm(scans, unit="volume", disable=None):
        scores.add(scan, ensemble.segment(scan))
    results = scores.results()
    about = {"runs": runs, **about_data(config, workdirs, split, results), "task": "segmentation"}
    write(output, about, results)
    print(segmentation.headline(results.metrics))
    return output


def evaluate_folds(
    workdirs: list[Path], config, split: str, patients: list[set[str]], data_dir: str, name: str
) -> Path:
    """Score each run on its own patients, then all patients together; return the folder of the pooled scores.

    Args:
      workdirs: the run directories of the folds.
      config: the config of the first run.
      split: the split to score.
      patients: the patients of `split` for each run. No patient may be in two of the sets.
      data_dir: the folder of the data; "" for the folder that the runs were trained on.
      name: the folder under eval/ of the first run; "" for "folds".
    """
    shared = sorted(set().union(*(a & b for i, a in enumerate(patients) for b in patients[:i])))
    if shared:
        raise UserError(
            f"some patients are in the {split} set of two runs and others are not: {', '.join(shared[:5])}",
            "pass runs with the same config.data.folds and different config.data.fold, or runs of one split",
        )
    runs = list(map(str, workdirs))
    output = output_folder(workdirs[0], name, "folds", {"split": split, "dataset": config.data.dir, "runs": runs})
    folders = [evaluate(str(workdir), split, data_dir) for workdir in workdirs]
    task = tasks.get(config.task)
    results = task.pool(folders)
    about = {"runs": runs, **about_data(config, workdirs, split, results)}
    write(output, about | task.about(config), results)
    print(task.headline(results.metrics))
    return output


def write(output: Path, about: dict, results: Results) -> None:
    """Write metrics.json, a CSV file per table and the figures.

    Args:
      output: the folder; it is created if it does not exist.
      about: the entries of metrics.json that come before the metrics.
      results: metrics, tables (cases.csv has one row per patient) and figures of the task.
    """
    metrics, tables, draw = results
    try:
        (output / "figures").mkdir(parents=True, exist_ok=True)
        workdir_lib.write_json(output / "metrics.json", about | metrics)
        for name, table in tables.items():
            table.to_csv(output / f"{name}.csv", index=False)
        draw(output / "figures")
    except OSError as error:
        raise UserError(f"cannot write to {output} ({error})", "free space or make the folder writable") from error
