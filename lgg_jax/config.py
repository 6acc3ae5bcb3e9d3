"""What a config may hold: every field of configs/default.py, each within its range.

    check_complete(config)
    check_ranges(config)
"""

import json
import runpy
from pathlib import Path

import ml_collections

from lgg_jax.errors import UserError

_ROOT = Path(__file__).parents[1]
AT_LEAST_ONE = ("data.size", "model.features", "model.levels", "train.batch_size", "train.log_every",
                "train.eval_every", "train.checkpoint_every", "eval.batch_size", "optimizer.accumulation")  # fmt: skip
SHARES = ("data.tumour_fraction", "eval.threshold", "model.dropout", "augment.flip_horizontal",
          "augment.flip_vertical", "augment.bias_field", "augment.elastic", "augment.carve_mix",
          "augment.missing_sequence", "train.start_share")  # fmt: skip


def check_complete(config: ml_collections.ConfigDict) -> None:
    """UserError where fields are missing, as from a config file that was not made from the default."""
    missing = sorted(default_fields().keys() - fields_of(config).keys())
    if missing:
        listing = ", ".join(missing[:4]) + ", …" * (len(missing) > 4)
        remedy = "begin its get_config with configs.default.get_config(), as configs/unet.py does"
        raise UserError(f"the config lacks {len(missing)} fields ({listing})", remedy)


def check_ranges(config: ml_collections.ConfigDict) -> None:
    """UserError where a number is none that its field can have."""
    for names, fits, remedy in (
        (AT_LEAST_ONE, lambda value: value >= 1, "choose at least 1"),
        (SHARES, lambda value: 0 <= value <= 1, "choose a number from 0 to 1"),
        (("data.context", "train.start_size"), lambda value: value >= 0, "choose at least 0"),
    ):
        for name in names:
            part, field = name.split(".")
            if not fits(config[part][field]):
                raise UserError(f"config.{name}={config[part][field]}", remedy)


def default_fields() -> dict:
    """Those of configs/default.py, which lies beside the package and not in it; none where it was left out."""
    path = _ROOT / "configs" / "default.py"
    return fields_of(runpy.run_path(str(path))["get_config"]()) if path.exists() else {}


def fields_of(config: ml_collections.ConfigDict) -> dict:
    """{"data.size": 256, …}: the fields as config.json has them."""
    return flat(json.loads(config.to_json()))


def flat(content: dict, prefix: str = "") -> dict:
    """{"a": {"b": 1}} → {"a.b": 1}."""
    found = {}
    for key, value in content.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found
