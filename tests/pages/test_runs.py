"""Reading a workdir for the report."""

import pandas as pd
import pytest

from configs import default, seed_paper, seed_paper_classifier, seed_paper_finetune
from lgg_jax import config as config_lib
from lgg_jax.pages import runs


@pytest.mark.parametrize("module, fields, values", [
    (seed_paper, {"data.dir": "x", "seed": 3, "train.minutes": 9.0, "data.test_fraction": 0.3}, {"Dice": 0.0711}),
    (seed_paper_finetune, {"init_from": "W"}, {"Dice": 0.3854}),
    (seed_paper_finetune, {"optimizer.learning_rate": 2e-5}, {}),
    (seed_paper, {"data.crop": True}, {}),
    (seed_paper_classifier, {"model.pretrained": "x"}, {"accuracy": 0.8804, "AUC": 0.9543}),
    (seed_paper_classifier, {"data.split_by": "patient"}, {}),
    (default, {}, {}),
])  # fmt: skip
def test_published_scores_belong_to_a_protocol(module, fields, values):
    config = module.get_config()
    config.update_from_flattened_dict(fields)
    assert runs.published(config_lib.fields_of(config)) == values


def test_an_incomplete_line_is_skipped(tmp_path):
    log = tmp_path / "metrics.jsonl"
    log.write_text('{"step": 1, "train/loss": 0.5}\n{"step": 2, "train/loss": 0.25}\n')
    complete = runs.read_log(log)
    assert list(complete["train/loss"]) == [0.5, 0.25]
    log.write_text(log.read_text() + '{"step": 99, "tra')
    pd.testing.assert_frame_equal(runs.read_log(log), complete)
