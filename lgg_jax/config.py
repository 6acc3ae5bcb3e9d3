"""Configs: loading a config file, its required fields and the range of each field.

    config = load("configs/unet.py")
    check_complete(config)
    check_ranges(config)
"""

import dataclasses
import json
import os
import runpy
import traceback
from collections.abc import Iterable
from pathlib import Path

import ml_collections
import numpy as np
from flax import traverse_util
from ml_collections import config_dict

from lgg_jax.errors import UserError

_ROOT = Path(__file__).parents[1]
_LARGEST = float(np.finfo(np.float32).max)  # A larger number would become infinity in float32.


@dataclasses.dataclass(frozen=True)
class Range:
    """The range of a numeric field. NaN and infinity are in no range.

    Attributes:
      low, high: the bounds.
      low_included, high_included: whether the bound itself is allowed.
      whole: whether only integers are allowed.
      entries: None for a single number; for a tuple, its length, or 0 for any length.
    """

    low: float
    high: float = _LARGEST
    low_included: bool = True
    high_included: bool = True
    whole: bool = False
    entries: int | None = None

    def holds(self, value: object) -> bool:
        """Return whether `value`, which may have any type, is in the range."""
        if self.entries is None:
            return self._holds_number(value)
        fits = isinstance(value, (tuple, list)) and len(value) == (self.entries or len(value))
        return fits and all(map(self._holds_number, value))

    def _holds_number(self, value: object) -> bool:
        if isinstance(value, bool) or not isinstance(value, int if self.whole else (int, float)):
            return False
        above = value >= self.low if self.low_included else value > self.low
        return above and (value <= self.high if self.high_included else value < self.high)

    def __str__(self) -> str:
        low = f"{'at least' if self.low_included else 'above'} {self.low}"
        high = f"{'at most' if self.high_included else 'below'} {self.high}"
        bounds = f"{low} and {'finite' if self.high == _LARGEST else high}"
        kind = "whole number" if self.whole else "number"
        if self.entries is None:
            return f"a {kind}, {bounds}"
        return f"a tuple of {f'{self.entries} ' if self.entries else ''}{kind}s, each {bounds}"


# The upper bound keeps the step number, and numbers computed from it, within 32 bits.
_COUNT = Range(1, 10**9, whole=True)
_COUNT_OR_ZERO = Range(0, 10**9, whole=True)
_POSITIVE = Range(0, low_included=False)
_NOT_NEGATIVE = Range(0)
_FRACTION = Range(0, 1)  # a probability or a fraction
_BELOW_ONE = Range(0, 1, high_included=False)

RANGES = {
    "seed": Range(0, 2**32 - 1, whole=True),  # JAX uses the lower 32 bits: a larger seed would equal a smaller one.
    "data.size": _COUNT,
    "data.context": _COUNT_OR_ZERO,
    "data.tumour_fraction": _FRACTION,
    "data.test_fraction": _BELOW_ONE,
    "data.validation_fraction": Range(0, 1, low_included=False, high_included=False),
    "data.folds": _COUNT_OR_ZERO,
    "data.fold": _COUNT_OR_ZERO,
    "augment.rotation_degrees": Range(0, 180),
    "augment.flip_horizontal": _FRACTION,
    "augment.flip_vertical": _FRACTION,
    "augment.crop_scale": dataclasses.replace(_POSITIVE, entries=2),
    "augment.brightness": _NOT_NEGATIVE,
    "augment.contrast": _BELOW_ONE,
    "augment.bias_field": _FRACTION,
    "augment.bias_field_deviation": _NOT_NEGATIVE,
    "augment.elastic": _FRACTION,
    "augment.elastic_share": _FRACTION,
    "augment.carve_mix": _FRACTION,
    "augment.missing_sequence": _FRACTION,
    "model.features": _COUNT,
    "model.levels": _COUNT,
    "model.dropout": _BELOW_ONE,
    "model.hidden": dataclasses.replace(_COUNT, entries=0),
    "model.norm_epsilon": _POSITIVE,
    "model.input_scale": dataclasses.replace(_POSITIVE, entries=3),
    "loss.bce": _NOT_NEGATIVE,
    "loss.dice": _NOT_NEGATIVE,
    "loss.focal_tversky": _NOT_NEGATIVE,
    "loss.positive_weight": _POSITIVE,
    "loss.label": _NOT_NEGATIVE,
    "loss.label_positive_weight": _POSITIVE,
    "loss.tversky_alpha": _POSITIVE,
    "loss.tversky_beta": _POSITIVE,
    "loss.tversky_gamma": _POSITIVE,
    "optimizer.learning_rate": _POSITIVE,
    "optimizer.weight_decay": _NOT_NEGATIVE,
    "optimizer.warmup_steps": _COUNT_OR_ZERO,
    "optimizer.clip_norm": _NOT_NEGATIVE,
    "optimizer.accumulation": _COUNT,
    "optimizer.ema_decay": _BELOW_ONE,
    "optimizer.backbone_rate": _NOT_NEGATIVE,
    "train.batch_size": _COUNT,
    "train.num_steps": _COUNT_OR_ZERO,
    "train.epochs": Range(0, 10**5),
    "train.minutes": Range(0, 10**5),
    "train.start_size": _COUNT_OR_ZERO,
    "train.start_share": _FRACTION,
    "train.log_every": _COUNT,
    "train.eval_every": _COUNT,
    "train.checkpoint_every": _COUNT,
    "train.patience": _COUNT_OR_ZERO,
    "eval.batch_size": _COUNT,
    "eval.finer": dataclasses.replace(_COUNT, entries=0),
    "eval.threshold": _BELOW_ONE,
}
# Descriptions of the values of other fields, by the type of the default in JSON.
_TYPES = {bool: "True or False", str: "a string", list: "a tuple of strings in quotes, such as ('a', 'b')"}


def load(path: str) -> ml_collections.ConfigDict:
    """Return the config that `get_config` of a config file returns.

    Args:
      path: the file, or "FILE:ARGUMENT" to call `get_config(ARGUMENT)`.

    Raises:
      UserError: the file does not exist, raises an exception, or does not return a ConfigDict of JSON values.
    """
    path, *argument = path.split(":", 1)
    if not Path(path).is_file():
        raise UserError(f"no such config file: {path}", "see python -m lgg_jax train --help")
    remedy = "define a get_config that returns a ConfigDict, as configs/smoke.py does"
    try:
        get_config = runpy.run_path(os.path.abspath(path)).get("get_config")
        config = get_config(*argument) if get_config else None
    except Exception as error:  # A config file is the user's code and can raise any exception.
        raise UserError(f"config file {path}{_cause(error, os.path.abspath(path))}", "correct the file") from error
    if get_config is None:
        raise UserError(f"config file {path} has no get_config", remedy)
    if type(config) is not ml_collections.ConfigDict:  # A FrozenConfigDict is refused too: flags change fields.
        returned = "None" if config is None else f"a value of type {type(config).__name__}"
        raise UserError(f"config file {path}: get_config returned {returned}", remedy)
    try:
        config.lock().to_json()  # as it will be written to config.json
    except (TypeError, config_dict.RequiredValueError) as error:
        wrong = f"config file {path}: a field cannot be written as JSON ({error})"
        raise UserError(wrong, "set each field to a number, a string, True, False or a tuple of these") from error
    return config


def _cause(error: Exception, path: str) -> str:
    """Describe an error of the config file at `path`, such as ", line 3: ZeroDivisionError: division by zero".

    The line is the last line of this file in the traceback.
    """
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
    if isinstance(error, SyntaxError) and error.filename == path:
        lines = [error.lineno]
    where = f", line {lines[-1]}" if lines else ""
    text = " ".join(f"{error}".split())[:300]
    return f"{where}: {type(error).__name__}" + (f": {text}" if text else "")


def check_complete(config: ml_collections.ConfigDict) -> None:
    """Raise UserError if fields are missing, for example because the config is not based on configs/default.py."""
    missing = sorted(default_fields().keys() - fields_of(config).keys())
    if missing:
        listing = ", ".join(missing[:4]) + ", …" * (len(missing) > 4)
        remedy = "begin its get_config with configs.default.get_config(), as configs/unet.py does"
        raise UserError(f"the config lacks {len(missing)} fields ({listing})", remedy)


def check_ranges(config: ml_collections.ConfigDict) -> None:
    """Raise UserError if the value of a field is out of range or has another type than the default."""
    values = traverse_util.flatten_dict(config.to_dict(), sep=".")
    for name, numbers in RANGES.items():
        if not numbers.holds(values[name]):
            raise UserError(f"config.{name}={values[name]!r}", f"choose {numbers}")
    for name, default in default_fields().items():
        if name not in RANGES and not _same_type(values[name], default):
            raise UserError(f"config.{name}={values[name]!r}", f"choose {_TYPES[type(default)]}")
    low, high = values["augment.crop_scale"]
    if low > high:
        raise UserError(f"config.augment.crop_scale={low, high}", "write the smaller number first")


def _same_type(value: object, default: str | bool | list) -> bool:
    if isinstance(default, list):  # JSON has a list where the config has a tuple.
        return isinstance(value, (tuple, list)) and all(isinstance(entry, str) for entry in value)
    return isinstance(value, type(default))


def default_fields() -> dict:
    """Return the fields of configs/default.py, or {} if that file, which is outside the package, is not installed."""
    path = _ROOT / "configs" / "default.py"
    return fields_of(runpy.run_path(str(path))["get_config"]()) if path.exists() else {}


def fields_of(config: ml_collections.ConfigDict) -> dict:
    """Return the fields with the values that config.json has, as {"data.size": 256, …}."""
    return traverse_util.flatten_dict(json.loads(config.to_json()), sep=".")


def check_choice(field: str, value: object, choices: Iterable[str]) -> None:
    """Raise UserError if `value`, the value of `config.<field>`, is not one of `choices`."""
    if value not in choices:
        raise UserError(f"config.{field}={value!r} is unknown", f"choose one of {', '.join(choices)}")
