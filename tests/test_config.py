"""Configs: files, fields and ranges. Errors are printed as one line before any data is loaded."""

import json
import math
import re
import shutil

import ml_collections
import numpy as np
import pytest
from conftest import ROOT, smoke_words
from flax import traverse_util
from test_main import assert_one_line

from configs import default
from lgg_jax import config as config_lib
from lgg_jax.config import RANGES, Range, check_complete, check_ranges
from lgg_jax.data import dataset
from lgg_jax.errors import UserError

CONFIGS = sorted(path.stem for path in (ROOT / "configs").glob("[!_]*.py"))
FIELDS = traverse_util.flatten_dict(default.get_config().to_dict(), sep=".")
TUPLES = {"augment.crop_scale": 2, "model.hidden": 0, "model.input_scale": 3, "eval.finer": 0}


def with_field(name: str, value: object) -> ml_collections.ConfigDict:
    """Return the config of configs/default.py with one changed field, whose value may have any type."""
    return ml_collections.ConfigDict(traverse_util.unflatten_dict(FIELDS | {name: value}, sep="."))


def is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def test_every_numeric_field_has_a_range_and_no_other():
    numeric = {name for name, value in FIELDS.items() if is_number(value) or name in TUPLES}
    numeric |= {name for name, value in FIELDS.items() if isinstance(value, tuple) and any(map(is_number, value))}
    assert numeric == set(RANGES)


@pytest.mark.parametrize("name", RANGES)
def test_a_range_has_the_type_of_the_default(name):
    assert RANGES[name].entries == TUPLES.get(name)
    values = FIELDS[name] if name in TUPLES else [FIELDS[name]]
    assert all(isinstance(value, int) == RANGES[name].whole for value in values)


@pytest.mark.parametrize("name", CONFIGS)
def test_every_config_is_within_its_ranges(name):
    config = config_lib.load(f"{ROOT}/configs/{name}.py")
    check_complete(config)
    check_ranges(config)


@pytest.mark.parametrize("name", RANGES)
def test_values_outside_a_range(name):
    numbers = RANGES[name]
    below = numbers.low - 1 if numbers.low_included else numbers.low
    above = numbers.high * 2 if numbers.high_included else numbers.high
    wrong = [below, above, math.nan, math.inf, -math.inf, "1", None, True] + [1.5] * numbers.whole
    if name in TUPLES:
        wrong = [(value,) * (TUPLES[name] or 1) for value in wrong] + [1, "1", None]
        wrong += [(1,) * count for count in (TUPLES[name] - 1, TUPLES[name] + 1) if TUPLES[name]]
    for value in wrong:
        with pytest.raises(UserError, match=rf"^config\.{name}={re.escape(repr(value))}; choose a "):
            check_ranges(with_field(name, value))


@pytest.mark.parametrize("name", RANGES)
def test_the_bounds_of_a_range(name):
    numbers = RANGES[name]
    low = numbers.low if numbers.low_included else np.nextafter(numbers.low, 1).item()
    high = numbers.high if numbers.high_included else np.nextafter(numbers.high, 0).item()
    for value in (low, high):
        check_ranges(with_field(name, (value,) * (TUPLES[name] or 1) if name in TUPLES else value))


@pytest.mark.parametrize("numbers, expected", [
    (Range(0), "a number, at least 0 and finite"),
    (Range(0, 1, low_included=False, high_included=False), "a number, above 0 and below 1"),
    (Range(1, 9, whole=True), "a whole number, at least 1 and at most 9"),
    (Range(0, low_included=False, entries=2), "a tuple of 2 numbers, each above 0 and finite"),
    (Range(1, 9, whole=True, entries=0), "a tuple of whole numbers, each at least 1 and at most 9"),
])  # fmt: skip
def test_the_description_of_a_range(numbers, expected):
    assert str(numbers) == expected


@pytest.mark.parametrize("name, value, expected", [
    ("data.dir", None, "a string"),
    ("data.crop", "False", "True or False"),
    ("optimizer.frozen", "backbone", "a tuple of strings in quotes, such as"),
    ("optimizer.frozen", (1,), "a tuple of strings in quotes, such as"),
])  # fmt: skip
def test_a_value_of_another_type_than_the_default(name, value, expected):
    with pytest.raises(UserError, match=rf"^config\.{name}={re.escape(repr(value))}; choose {expected}"):
        check_ranges(with_field(name, value))
    check_ranges(with_field("optimizer.frozen", ["backbone"]))


@pytest.fixture
def no_data(monkeypatch):
    """Fail the test if it reads data."""
    def read(*_arguments):
        pytest.fail("data was read")

    for name in ("load_volumes", "list_patients", "resolve_splits", "read_splits"):
        monkeypatch.setattr(dataset, name, read)


@pytest.mark.parametrize("name, value, printed", [
    ("optimizer.learning_rate", "-1", "-1.0"),
    ("optimizer.learning_rate", "nan", "nan"),
    ("optimizer.learning_rate", "inf", "inf"),
    ("optimizer.ema_decay", "1", "1.0"),
    ("optimizer.warmup_steps", "-5", "-5"),
    ("model.dropout", "1", "1.0"),
    ("loss.dice", "-1", "-1.0"),
    ("augment.crop_scale", "(0.8,)", "(0.8,)"),
    ("augment.crop_scale", "(1.2, 0.8)", "(1.2, 0.8)"),
    ("augment.crop_scale", "('a', 'b')", "('a', 'b')"),
    ("augment.crop_scale", "0.8", "(0.8,)"),
    ("model.hidden", "(0,)", "(0,)"),
    ("optimizer.frozen", "(1, 2)", "(1, 2)"),
    ("model.fixed_norm", "(None,)", "(None,)"),
    ("data.validation_patients", "(1, 2)", "(1, 2)"),
    ("train.epochs", "1e400", "inf"),
    ("seed", "-1", "-1"),
    ("seed", str(2**32), str(2**32)),
    ("data.size", "9" * 30, "9" * 30),
])  # fmt: skip
def test_values_on_the_command_line(lgg, no_data, tmp_path, name, value, printed):
    ended = lgg(*smoke_words("nowhere", tmp_path / "run"), f"--config.{name}={value}")
    assert_one_line(ended, re.escape(f"config.{name}={printed}"))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("words, expected", [
    (("--config.train=3",), "is not a dict"),
    (("--config.train.num_steps.x=3",), "does not exist"),
    (("--config.train.num_steps=2.0",), "invalid literal"),
    (("--config.train.num_steps",), "Missing value for flag --config.train.num_steps"),
    (("--config.data.crop=maybe",), "Non-boolean argument"),
    (("--config.augment.crop_scale=(1,",), "Error while parsing string: (1, as tuple"),
    (("--config.",), "Could not parse"),
])  # fmt: skip
def test_flags_that_do_not_parse(lgg, no_data, tmp_path, words, expected):
    ended = lgg("train", f"--config={ROOT}/configs/smoke.py", f"--workdir={tmp_path}/run", *words)
    assert_one_line(ended, re.escape(expected))


def test_a_warm_up_longer_than_the_run(lgg, no_data, tmp_path):
    words = smoke_words("nowhere", tmp_path / "run", train__num_steps=200, optimizer__warmup_steps=500)
    assert_one_line(lgg(*words), r"config\.optimizer\.warmup_steps=500 is longer than the run of 200 steps")


def test_a_warm_up_longer_than_the_epochs(lgg, small_phantoms, tmp_path):
    """The number of steps is known after the slices are counted."""
    fields = {"train__num_steps": 0, "train__epochs": 1.0, "optimizer__warmup_steps": 10**6}
    ended = lgg(*smoke_words(small_phantoms, tmp_path / "run", **fields))
    assert_one_line(ended, r"config\.optimizer\.warmup_steps=1000000 is longer than the run of [0-9]+ steps")
    assert not (tmp_path / "run").exists()


RETURNED = "from configs import default\ndef get_config():\n    config = default.get_config()\n    {}\n    return {}\n"


@pytest.mark.parametrize("text, expected", [
    ("def get_config(:", r", line 1: SyntaxError: .*\(mine.py, line 1\); correct the file"),
    ("\nimport no_such_module", ", line 2: ModuleNotFoundError: .*no_such_module"),
    ("x = 1\nraise RuntimeError('no\\nluck')", ", line 2: RuntimeError: no luck; correct the file"),
    ("def half():\n    return y\n\ndef get_config():\n    return half()", ", line 2: NameError: name 'y' is not"),
    ("def get_config():\n    return 1 / 0", ", line 2: ZeroDivisionError: division by zero"),
    ("def get_config():\n    assert False", ", line 2: AssertionError; correct the file"),
    ("def get_config():\n    open('/nowhere/at/all')", ", line 2: FileNotFoundError: .*'/nowhere/at/all'"),
    ("def get_config():\n    b'\\xff'.decode()", ", line 2: UnicodeDecodeError"),
    ("def get_config():\n    {}['size']", ", line 2: KeyError: 'size'"),
    ("from configs import default\ndef get_config():\n    return default.get_config(3)", ", line 3: TypeError"),
    (RETURNED.format("config.data.size = 'large'", "config"), ", line 4: TypeError: .*'size'"),
    (RETURNED.format("config.optimizer.learning_rate", "None"), ": get_config returned None; define a get_config"),
    ("def get_config():\n    return {'seed': 0}", ": get_config returned a value of type dict; define a get_config"),
    ("def get_config(size):\n    return size", ": TypeError: .*missing 1 required positional argument"),
    ("seed = 0", " has no get_config; define a get_config"),
    ("", " has no get_config; define a get_config"),
])  # fmt: skip
@pytest.mark.parametrize("words", [(), ("--config.seed=1",)])
def test_a_config_file_that_fails(lgg, tmp_path, text, expected, words):
    path = tmp_path / "mine.py"
    path.write_text(text)
    ended = lgg("train", f"--config={path}", f"--workdir={tmp_path}/run", *words)
    assert_one_line(ended, "")
    assert re.match(f"lgg_jax: error: config file {re.escape(str(path))}{expected}", ended.err), ended.err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("text, expected", [
    ("from ml_collections import ConfigDict\ndef get_config(): return ConfigDict({'seed': 0})",
     r"the config lacks [0-9]+ fields \(augment.bias_field, .* …\)"),
    (RETURNED.format("config.train.batch_size = None", "config"), "config.train.batch_size=None"),
    (RETURNED.format("config.note = {1, 2}.union", "config"), "mine.py: a field cannot be written as JSON"),
    (RETURNED.format("from ml_collections import config_dict; config.seed = config_dict.required_placeholder(int)",
                     "config"), "mine.py: a field cannot be written as JSON"),
])  # fmt: skip
def test_a_config_file_with_invalid_fields(lgg, no_data, tmp_path, text, expected):
    path = tmp_path / "mine.py"
    path.write_text(text)
    assert_one_line(lgg("train", f"--config={path}", f"--workdir={tmp_path}/run"), expected)


def test_a_folder_as_config_file(lgg, tmp_path):
    ended = lgg("train", f"--config={tmp_path}", f"--workdir={tmp_path}/run")
    assert_one_line(ended, f"no such config file: {tmp_path}")


def test_a_config_file_with_an_argument(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("from configs import smoke\ndef get_config(seed):\n    config = smoke.get_config()\n"
                    "    config.seed = int(seed)\n    return config\n")  # fmt: skip
    config = config_lib.load(f"{path}:7")
    assert config.seed == 7 and config.is_locked


def test_ranges_are_not_checked_for_the_evaluation_of_an_old_run(lgg, trained, tmp_path):
    path = shutil.copytree(trained, tmp_path / "run") / "config.json"
    content = json.loads(path.read_text())
    content["eval"]["threshold"], content["model"]["dropout"], content["seed"] = 1.0, 1.0, -1
    path.write_text(json.dumps(content))
    ended = lgg("evaluate", f"--workdir={tmp_path}/run")
    assert (ended.code, ended.err) == (0, "")


def test_fields_are_flat_and_ordered_without_empty_parts():
    config = ml_collections.ConfigDict({"b": {"y": 1, "x": (2,)}, "a": {}, "c": "text"})
    assert list(config_lib.fields_of(config).items()) == [("b.y", 1), ("b.x", [2]), ("c", "text")]
