"""Escaping: Python code contains no markup, and names of patients, runs and folders never become markup."""

import ast
import dataclasses
import re
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
from head_volume import head_volume
from PIL import Image

from configs import default, seed_paper_finetune
from lgg_jax import config as config_lib
from lgg_jax.data import dataset
from lgg_jax.data.survey import survey
from lgg_jax.figures import augmentation
from lgg_jax.pages import explore, html, report
from lgg_jax.pages.runs import Evaluation, Run

HOSTILE = "<script>alert(1)</script>&\"'"
FILES = sorted(Path(html.__file__).parent.glob("*.py"))


class Structure(HTMLParser):
    """The tags with the names of their attributes, the values of the attributes, and the texts."""

    def __init__(self, text: str):
        super().__init__()
        self.tags, self.values, self.texts = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, [name for name, _ in attributes]))
        self.values += [value for _, value in attributes if value]

    def handle_data(self, data):
        self.texts.append(data)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_python_contains_no_markup(path):
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    literals = (node for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str))
    assert [node.lineno for node in literals if re.search("</?[A-Za-z]", node.value)] == []


def explored(name: str, folder: Path, monkeypatch) -> str:
    """The page of `explore`: data folder and first patient have this name; the patient has missing values."""
    incomplete = dataclasses.replace(head_volume(name, left=20), clinical={})
    incomplete.image[..., 2] = incomplete.image[..., 1]
    volumes = [incomplete, head_volume("TCGA_CS_2", left=30), head_volume("TCGA_DU_3", left=35)]
    monkeypatch.setattr(dataset, "load_volumes", lambda _, names: (scan for scan in volumes if scan.patient in names))
    monkeypatch.setattr(augmentation, "augmentation_sheet", lambda *values: Image.new("L", (4, 4)).save(values[-1]))
    config = default.get_config()
    config.data.dir = name
    return explore.compose(survey(volumes), config, folder)


def reported(name: str, folder: Path) -> str:
    """The page of `report` for three runs in which every name is this one."""
    for picture in ("best", "best_truth", "best_prediction"):
        (folder / "figures" / "cases").mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 4)).save(folder / "figures" / "cases" / f"{picture}.png")
    dice = {"mean": 0.5, "median": 0.5, "ci95": [0.4, 0.6], "n": 3}
    group = {"volume_dice": dice, "tumour_pixels": [1, 2]}
    metrics = {"task": "segmentation", "split": name, "dataset": name, "step": 7, "volume_dice": dice,
               "subgroups": {name: {name: group}}}  # fmt: skip
    best = {"rank": "best", "name": "best", "patient": name, "slice": 1, "volume_dice": 0.5}
    cases = pd.DataFrame({"patient": [name], "institution": [name], name: [name]})
    fields = config_lib.fields_of(seed_paper_finetune.get_config()) | {"data.dir": name, "init_from": name}
    splits = {"by": "patient", "train": [name], "validation": [], "test": []}
    log = pd.DataFrame({"step": [1, 7], "train/loss": [1.0, 0.5]})
    one = Evaluation(name, folder, metrics, {"cases": cases}, [best])
    evaluated = Run(name, Path(name), fields, splits, {"step": 7}, {name: name}, log, [one], {})
    begun = dataclasses.replace(evaluated, name=f"second {name}", chosen=None, versions=None, evaluations=[])
    done = dataclasses.replace(begun, name=f"third {name}", chosen={"step": 7}, log=log[:0])
    return report.compose([evaluated, begun, done], config_lib.fields_of(default.get_config()), folder)


@pytest.mark.parametrize("page", ["report", "explore"])
def test_names_are_escaped(page, tmp_path, monkeypatch):
    def compose(name):
        return reported(name, tmp_path) if page == "report" else explored(name, tmp_path, monkeypatch)

    text = compose(HOSTILE)
    hostile, harmless = Structure(text), Structure(compose("harmless"))
    assert "<script>alert" not in text
    assert hostile.tags == harmless.tags
    for found, expected in ((hostile.values, harmless.values), (hostile.texts, harmless.texts)):
        shown = "".join(found).count(HOSTILE)
        assert shown == "".join(expected).count("harmless") > 2
