"""Logging: means over steps, TensorBoard, metrics.jsonl after a resume, and printed lines."""

import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util import tensor_util

from lgg_jax.training.logs import JsonlWriter, Logger


def lines(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_means_over_steps_are_weighted_by_count(tmp_path, capsys):
    with Logger(tmp_path, 0, 10) as logger:
        for total, count in ((3.0, 1), (1.0, 3), (0.0, 4)):
            logger.add({"loss": (jnp.asarray(total), jnp.asarray(count)), "grad_norm": (total, 1)})
        assert logger.flush(3) == {"loss": 0.5, "grad_norm": pytest.approx(4 / 3)}
        logger.add({"loss": (2.0, 1.0)})
        assert logger.flush(4) == {"loss": 2.0}, "a flush resets the sums"
    assert lines(tmp_path) == [
        {"step": 3, "train/loss": 0.5, "train/grad_norm": pytest.approx(4 / 3)}, {"step": 4, "train/loss": 2.0}]
    assert "step 3/10  train: grad_norm 1.3333  loss 0.5000" in capsys.readouterr().out


def test_a_mean_with_count_0_is_not_written(tmp_path):
    """An example is the accuracy of steps without a known label. It must not be reported as a divergence."""
    with Logger(tmp_path, 0, 10) as logger:
        logger.add({"loss": (1.0, 2.0), "accuracy": (0.0, 0.0)})
        assert logger.flush(1) == {"loss": 0.5}
        logger.add({"loss": (1.0, 2.0), "accuracy": (float("nan"), 1.0)})
        assert np.isnan(logger.flush(2)["accuracy"])


def test_tensorboard_has_scalars_and_images(tmp_path):
    picture = np.zeros((1, 4, 6, 3), np.uint8)
    with Logger(tmp_path, 0, 10) as logger:
        logger.scalars(5, "validation", {"volume_dice": 0.25})
        logger.images(5, {"TCGA_CS_0001": picture})
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    (event,) = events.Tensors("validation/volume_dice")
    assert (event.step, tensor_util.make_ndarray(event.tensor_proto)) == (5, 0.25)
    assert "validation/TCGA_CS_0001" in events.Tags()["tensors"]
    assert lines(tmp_path) == [{"step": 5, "validation/volume_dice": 0.25}]


@pytest.mark.parametrize("cut", ["", '{"step": 3', '{"step": 30, "a": 1.0', "{", "\x00\x00\x00"])
def test_a_resume_drops_later_lines_and_a_truncated_line(tmp_path, cut):
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps({"step": step, "a": 0.5}) + "\n" for step in (10, 20, 30)) + cut)
    writer = JsonlWriter(path, first_step=20)
    writer.write_scalars(30, {"a": np.float32(0.75)})
    writer.close()
    assert lines(tmp_path) == [{"step": 10, "a": 0.5}, {"step": 20, "a": 0.5}, {"step": 30, "a": 0.75}]
    assert [entry.name for entry in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_a_run_that_starts_from_step_0_starts_with_an_empty_file(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 10}\n')
    JsonlWriter(tmp_path / "metrics.jsonl", first_step=0).close()
    assert lines(tmp_path) == []


def test_lines_are_flushed_immediately(tmp_path):
    writer = JsonlWriter(tmp_path / "metrics.jsonl", first_step=0)
    writer.write_scalars(1, {"a": 1.0})
    assert lines(tmp_path) == [{"step": 1, "a": 1.0}]
    writer.close()


def test_a_resume_is_printed(tmp_path, capsys):
    with Logger(tmp_path, 4, 10):
        pass
    assert capsys.readouterr().out == "resuming from step 4 of 10\n"


def test_other_hosts_print_and_write_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("lgg_jax.parallel.is_first_host", lambda: False)
    with Logger(tmp_path / "logs", 4, 10) as logger:
        logger.add({"loss": (1.0, 2.0)})
        assert logger.flush(5) == {"loss": 0.5}, "every host must detect a divergence"
        logger.images(5, {"a": np.zeros((1, 4, 4, 3), np.uint8)})
    assert capsys.readouterr().out == ""
    assert not (tmp_path / "logs").exists()
