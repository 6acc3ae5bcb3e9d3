"""End to end on the command line: a shipped config, reduced by a few fields, from phantoms to figures."""

import importlib
import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, launch, result, smoke_words
from flax import traverse_util
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from configs import default
from lgg_jax import models, tasks, train
from lgg_jax.data import pipeline
from lgg_jax.data.layouts import kaggle
from lgg_jax.metrics.segmentation import summarise
from lgg_jax.training import length
from lgg_jax.training.checkpoints import restore_variables
from lgg_jax.training.optimizer import create_optimizer
from lgg_jax.training.start import resolve

CONFIGS = sorted(path.stem for path in (ROOT / "configs").glob("[!_]*.py"))
SHRUNK = {"data.size": 32, "data.validation_fraction": 0.2, "model.features": 4, "optimizer.warmup_steps": 10,
          "train.start_size": 16, "train.start_share": 0.25, "train.num_steps": 90, "train.eval_every": 30}  # fmt: skip
SUMMARY = {"mean", "median", "std", "ci95", "n"}


@pytest.fixture(scope="module")
def end_to_end(tmp_path_factory, lgg) -> Path:
    """The folder after synthesize, check, train and evaluate. Every command succeeds and prints nothing to stderr."""
    folder = tmp_path_factory.mktemp("end_to_end")
    data, run = folder / "phantoms", folder / "run"
    changes = [f"--config.{name}={value}" for name, value in SHRUNK.items()]
    for command, *words in (
        (lgg, "synthesize", f"--output={data}", "--patients=10"),
        (lgg, "check", f"--data_dir={data}"),
        (launch, "train", "--config=configs/unet_cpu.py", f"--workdir={run}", f"--config.data.dir={data}", *changes),
        (launch, "evaluate", f"--workdir={run}"),
    ):
        ended = command(*words)
        ended = ended if command is lgg else result(ended)
        assert (ended.code, ended.err) == (0, ""), (words, ended)
    return folder


def read_json(path: Path) -> dict:
    return json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(f"{path} holds {name}"))


def read_cases(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "cases.csv", keep_default_na=False, na_values=[""])


def test_the_keys_of_metrics_json(end_to_end):
    metrics = read_json(end_to_end / "run/eval/test/metrics.json")
    assert metrics["task"] == "segmentation"
    assert (metrics["split"], metrics["dataset"]) == ("test", str(end_to_end / "phantoms"))
    assert metrics["step"] in (30, 60, 90)
    for name in ("volume_dice", "volume_iou", "hd95_px", "sensitivity", "precision"):
        assert set(metrics[name]) == SUMMARY
        assert metrics[name]["n"] == 2
        high = 1 if name != "hd95_px" else float("inf")
        assert 0 <= metrics[name]["ci95"][0] <= metrics[name]["mean"] <= metrics[name]["ci95"][1] <= high
    for name in ("slice_dice_tumour", "slice_dice_all"):
        assert set(metrics[name]) == {"mean", "ci95", "n"}
        assert 0 <= metrics[name]["mean"] <= 1
    assert 0 < metrics["all_background_slice_dice"] < 1
    assert set(metrics["subgroups"]) == {"institution", "grade", "missing_sequences", "tumour_size"}


def test_the_trained_model_segments(end_to_end):
    metrics = read_json(end_to_end / "run/eval/test/metrics.json")
    assert metrics["volume_dice"]["mean"] > 0.5


def test_cases_csv_has_the_patients_of_the_split_and_gives_the_metrics(end_to_end):
    cases = read_cases(end_to_end / "run/eval/test")
    splits = read_json(end_to_end / "run/splits.json")
    assert sorted(cases["patient"]) == splits["test"]
    metrics = read_json(end_to_end / "run/eval/test/metrics.json")
    again = json.loads(json.dumps(summarise(cases)))
    assert {name: metrics[name] for name in again} == again
    for volume in kaggle.load_volumes(end_to_end / "phantoms", patients=splits["test"]):
        row = cases[cases["patient"] == volume.patient].iloc[0]
        assert row["slices"] == len(volume.image)
        assert row["tumour_pixels"] == volume.mask.sum()


def test_figures_are_png_files(end_to_end):
    for name in ("overlays.png", "dice.png"):
        with Image.open(end_to_end / "run/eval/test/figures" / name) as picture:
            assert picture.format == "PNG"
            assert min(picture.size) > 100


def test_the_files_of_a_workdir(end_to_end):
    run = end_to_end / "run"
    assert {path.name for path in run.iterdir()} == {
        "config.json", "splits.json", "length.json", "versions.json", "postprocess.json", "checkpoints", "logs",
        "eval"}
    assert read_json(run / "length.json") == {"num_steps": 90}
    assert read_json(run / "config.json")["model"]["features"] == 4
    assert read_json(run / "versions.json")["data"].startswith("lgg_mri 1.0.0, ")
    assert read_json(run / "postprocess.json")["step"] == read_json(run / "eval/test/metrics.json")["step"]


def test_tensorboard_events(end_to_end):
    events = EventAccumulator(str(end_to_end / "run/logs"))
    events.Reload()
    assert {"train/loss", "train/grad_norm", "validation/volume_dice"} <= set(events.Tags()["tensors"])
    assert [event.step for event in events.Tensors("validation/volume_dice")] == [30, 60, 90]
    pictures = [tag for tag in events.Tags()["tensors"] if tag.startswith("validation/TCGA")]
    assert len(pictures) == 1
    last = [json.loads(line) for line in (end_to_end / "run/logs/metrics.jsonl").read_text().splitlines()][-1]
    assert last["step"] == 90


def test_external_validation_without_clinical_table(end_to_end, lgg, tmp_path):
    other = tmp_path / "other"
    assert lgg("synthesize", f"--output={other}", "--patients=3", "--seed=9").code == 0
    (other / "data.csv").unlink()
    ended = lgg("evaluate", f"--workdir={end_to_end}/run", f"--data_dir={other}", "--split=all", "--name=x")
    assert ended.code == 0, ended.err
    metrics = read_json(end_to_end / "run/eval/x/metrics.json")
    assert (metrics["dataset"], metrics["split"], metrics["volume_dice"]["n"]) == (str(other), "all", 3)
    assert set(metrics["subgroups"]["grade"]) == {"unknown"}
    assert sorted(read_cases(end_to_end / "run/eval/x")["patient"]) == sorted(kaggle.list_patients(other)["patient"])


def test_init_from_takes_the_best_weights_and_the_splits(
    trained, smoke_config, tmp_path, monkeypatch
):
    smoke_config.update_from_flattened_dict({"init_from": str(trained), "seed": 5, "data.test_fraction": 0.5})

    def first_step(start, _batch):
        for variables in ({"params": start.params, "batch_stats": start.batch_stats}, start.ema):
            jax.tree.map(np.testing.assert_array_equal, variables, restore_variables(trained)[0])
        assert start.step == 0
        raise KeyboardInterrupt

    monkeypatch.setattr("lgg_jax.parallel.map_step", lambda _: first_step)
    with pytest.raises(KeyboardInterrupt):
        train.train(smoke_config, tmp_path / "second")
    assert read_json(tmp_path / "second/splits.json") == read_json(trained / "splits.json")


def test_early_stopping_still_chooses_the_postprocessing(smoke_config, tmp_path, capsys):
    """The scores fall after the second validation. Of equal scores, the later one would be the best."""
    smoke_config.update_from_flattened_dict({
        "train.num_steps": 100, "train.eval_every": 2, "train.patience": 2, "train.checkpoint_every": 100,
    })  # fmt: skip
    scores = iter([0.5, 0.6, 0.4, 0.3, 0.9])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lgg_jax.tasks.segmentation.validate", lambda *_: (score := next(scores), {"volume_dice": score}))
        train.train(smoke_config, tmp_path)
    assert "early stopping: 2 validations without a new best score" in capsys.readouterr().out
    lines = [json.loads(line) for line in (tmp_path / "logs/metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["step"] == 8
    assert read_json(tmp_path / "postprocess.json")["step"] == 4
    assert restore_variables(tmp_path)[1] == 4


def test_minutes_are_converted_to_steps_once(small_phantoms, tmp_path, lgg):
    words = smoke_words(small_phantoms, tmp_path / "run", train__num_steps=0, train__minutes=0.1)
    ended = lgg(*words)
    assert ended.code == 0, ended.err
    length = (tmp_path / "run/length.json").read_text()
    steps = json.loads(length)["num_steps"]
    assert steps >= 1
    assert f"step {steps}/{steps}" in ended.out
    ended = lgg(*words)
    assert f"resuming from step {steps} of {steps}" in ended.out
    assert (tmp_path / "run/length.json").read_text() == length


def test_divergence_keeps_the_last_good_checkpoint(trained, small_phantoms, tmp_path, monkeypatch, lgg):
    """A run is resumed in the middle, and all further images are infinite."""
    workdir = tmp_path / "run"
    shutil.copytree(trained, workdir)
    (workdir / "length.json").write_text('{"num_steps": 60}')
    batches = pipeline.train_batches

    def infinite(*args):
        return ({**batch, "image": batch["image"] + np.inf} for batch in batches(*args))

    monkeypatch.setattr(pipeline, "train_batches", infinite)
    ended = lgg(*smoke_words(small_phantoms, workdir))
    assert ended.code == 2
    assert len(ended.err.splitlines()) == 1
    assert ended.err.startswith("lgg_jax: error: the training diverged at or before step 30 (")
    assert f"{workdir}/checkpoints keeps the last good checkpoint" in ended.err
    jax.tree.map(np.testing.assert_array_equal, restore_variables(workdir)[0], restore_variables(trained)[0])


@pytest.mark.parametrize("name", CONFIGS)
def test_every_config_has_all_fields_and_a_model(name):
    config = importlib.import_module(f"configs.{name}").get_config()
    assert fields(config) == fields(default.get_config())
    assert importlib.import_module(f"configs.{name}").__doc__.count("python -m lgg_jax train") == 1
    task, size, channels = tasks.get(config.task), config.data.size, 3 * (1 + 2 * config.data.context)
    assert resolve(config) == config
    config.data.segmentation_workdir = "W" if name == "grade_two_stage" else ""  # This config requires a value.
    task.check(config)
    model = models.create_model(config.model)
    inputs = task.inputs({"image": jnp.zeros((1, size, size, channels)), "clinical": jnp.zeros((1, 0))})
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), *inputs, train=False))
    assert traverse_util.flatten_dict(shapes["params"])
    optimizer = create_optimizer(config.optimizer, 1000)
    jax.eval_shape(optimizer.init, shapes["params"])
    if name != "default":
        length.steps_without_clock(config.train, 1000)


def fields(config) -> set[str]:
    return set(traverse_util.flatten_dict(json.loads(config.to_json())))
