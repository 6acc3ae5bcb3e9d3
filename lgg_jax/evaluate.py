"""A restored checkpoint scored on whole volumes: eval/<name>/metrics.json, cases.csv and figures.

    python -m lgg_jax evaluate --workdir=W [--split=test] [--data_dir=OTHER --split=all] [--name=NAME] [--step=N]

With --data_dir it is an external validation: any folder in a known layout, with or without clinical values.
Several --workdir flags go to eval/folds or eval/ensemble of the first. Runs that hold out different patients are the
folds of one training: each scores its own. Runs that hold out the same ones, or with --split=all, are an ensemble:
every patient's outline is the one that `predict` makes with them.
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
    """Flags of the verb `evaluate`."""
    many = "The training run; several are the folds of one training, or an ensemble."
    flags.DEFINE_multi_string("workdir", None, many, flag_values=flag_values)
    flags.DEFINE_enum("split", "test", SPLITS, "Which patients.", flag_values=flag_values)
    where = "Where the data lies now; with --split=all any other data set."
    flags.DEFINE_string("data_dir", "", where, flag_values=flag_values)
    folder = "Folder under eval/; default: the split's name, of several runs folds or ensemble."
    flags.DEFINE_string("name", "", folder, flag_values=flag_values)
    flags.DEFINE_integer("step", None, "Which checkpoint; default: the best on validation.", flag_values=flag_values)
    flags.mark_flags_as_required(["workdir"], flag_values)


def main(flag_values: flags.FlagValues) -> int:
    """The verb `evaluate`."""
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
    """Scores every volume of `split` and returns the folder with the results.

    Args:
      workdir: of the training.
      split: "train", "validation", "test" (of the workdir's splits.json) or "all".
      data_dir: where the data lies now, or, with `split` "all", another data set.
      name: of the folder under eval/.
      step: of the checkpoint, None for the best on validation.
    """
    workdir = Path(workdir)
    config = workdir_lib.read_config(workdir)
    task = tasks.get(config.task)
    patients = choose_patients(config, workdir, split, data_dir)
    now = {"split": split, "dataset": config.data.dir} | ({} if step is None else {"step": step})
    output = output_folder(workdir, name, split, now)
    run = segmenter.restore(workdir, config, step)
    preparation = task.preparation(config, workdir, segmenter.predicted_masks(config), None)
    cases = dataset.load_cases(config, preparation.prepare, patients)
    results = task.evaluate(run.predictor(), run.variables, cases, run.chosen, preparation)
    about = {"step": run.step, **about_data(config, [workdir], split, results)}
    write(output, about | task.about(config), results)
    print(task.headline(results.metrics))
    return output


def output_folder(workdir: Path, name: str, default: str, asked: dict) -> Path:
    """The folder of the scores: eval/<name or default>.

    Args:
      workdir: the run directory.
      name: the folder that the user chose; its scores may be overwritten. "" means `default`.
      default: the folder otherwise; only scores with the same identity may be overwritten.
      asked: what is to be scored, with the keys of metrics.json: `split`, `dataset`, `runs` if there are several, and
        `step` if the user chose one. Without it, the scores of a new best step may replace those of an earlier one.

    Raises:
      UserError: the default folder holds scores with another identity.
    """
    output = workdir / "eval" / (name or default)
    if name or not (output / "metrics.json").exists():
        return output
    before = workdir_lib.read_json(output / "metrics.json", "remove it, or pass --name=NAME")
    old, new = _identity(before, asked), _identity(asked, asked)
    differing = [key for key in new if old[key] != new[key]]
    if differing:
        listing = ", ".join(f"{key} {before.get(key)}, not {asked[key]}" for key in differing)
        raise UserError(f"{output} holds other scores ({listing})", "pass --name=NAME to keep both")
    return output


def _identity(scores: dict, asked: dict) -> dict:
    """What identifies `scores`, the entries of a metrics.json: those that `asked` names, ready to be compared.

    The data folder counts for the split "all" only: the other splits name their patients. Two paths of the same folder
    are equal. The order of the runs does not count.
    """
    identity = {key: scores.get(key) for key in asked if key != "dataset" or asked["split"] == "all"}
    if "dataset" in identity:
        identity["dataset"] = Path(identity["dataset"] or "").resolve()
    if "runs" in identity:
        identity["runs"] = sorted(Path(run).resolve() for run in identity["runs"] or ())
    return identity


def about_data(config, workdirs: list[Path], split: str, results: Results) -> dict:
    """What metrics.json says of the patients that were scored; says it aloud where a run has learnt from them."""
    splits = [splits_lib.read_splits(workdir / "splits.json") for workdir in workdirs]
    about = {"task": config.task, "dataset": str(config.data.dir), "split": split, "split_by": splits[0]["by"]}
    if split != "all":
        return about
    known = set().union(*(splits_lib.members(each, name) for each in splits for name in ("train", "validation")))
    scored = set(results.tables["cases"]["patient"])
    if scored & known:
        print(f"{len(scored & known)} of these {len(scored)} patients trained or validated the run: they flatter it")
    return about | {"patients_trained_or_validated_on": len(scored & known)}


def choose_patients(config, workdir: Path, split: str, data_dir: str) -> dict[str, set[int] | None] | None:
    """The patients to score, as `splits.members` has them, None for all; sets `config.data.dir` where given."""
    config.data.dir = data_dir or config.data.dir
    if split == "all":
        return None
    splits = splits_lib.read_splits(workdir / "splits.json")
    if splits["by"] == "slice":
        print("this run was split by slice: slices of one patient trained and are tested, which flatters the numbers")
    patients = splits_lib.members(splits, split)
    if not patients:
        raise UserError(f"{workdir}/splits.json has no {split} patients", "choose another --split")
    missing = sorted(set(patients) - set(dataset.list_patients(config.data)["patient"]))
    if missing:
        raise UserError(
            f"{config.data.dir} lacks {len(missing)} of the {split} patients of {workdir} ({', '.join(missing[:3])})",
            "pass the folder it was trained on as --data_dir, or --split=all to score another data set",
        )
    return patients


def evaluate_together(workdirs: list[str], split: str, data_dir: str = "", name: str = "") -> Path:
    """Scores several runs as folds or as an ensemble, as the patients they hold out tell; returns the folder."""
    paths = [Path(workdir) for workdir in workdirs]
    if len({path.resolve() for path in paths}) < len(paths):
        raise UserError("one --workdir is given twice", "pass each once")
    configs = [workdir_lib.read_config(path) for path in paths]
    members = [choose_patients(*run, split, data_dir) for run in zip(configs, paths, strict=True)]
    if all(each == members[0] for each in members):
        if any("mask" not in tasks.get(config.task).OUTPUTS for config in configs):
            raise UserError("only segmentations are scored as an ensemble, and a run classifies", "pass each run alone")
        return evaluate_ensemble(paths, configs[0], split, members[0], name)
    if len({(config.task, config.data.get("target")) for config in configs}) > 1:
        raise UserError("the workdirs hold different tasks or targets", "pass the folds of one training")
    return evaluate_folds(paths, configs[0], split, [set(each) for each in members], data_dir, name)


def evaluate_ensemble(workdirs: list[Path], config, split: str, patients: dict | None, name: str) -> Path:
    """Scores the outlines that `predict` makes with these runs on `patients` (None: all) of `config.data.dir`."""
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
    workdirs: list[Path], config, split: str, members: list[set[str]], data_dir: str, name: str
) -> Path:
    """Scores each run on its own patients and all of them together. A patient may be in one of the sets only."""
    shared = sorted(set().union(*(a & b for i, a in enumerate(members) for b in members[:i])))
    if shared:
        raise UserError(
            f"some patients are in the {split} set of two runs and others are not: {', '.join(shared[:5])}",
            "pass runs with config.data.folds=K and each another config.data.fold, or runs of one split",
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
    """metrics.json with `about` before it, cases.csv (a row a patient), what other tables the task has, figures."""
    metrics, tables, draw = results
    try:
        (output / "figures").mkdir(parents=True, exist_ok=True)
        workdir_lib.write_json(output / "metrics.json", about | metrics)
        for name, table in tables.items():
            table.to_csv(output / f"{name}.csv", index=False)
        draw(output / "figures")
    except OSError as error:
        raise UserError(f"cannot write to {output} ({error})", "free space or mend the folder") from error
