"""Checks of a config that several tasks share. Each raises UserError before any data is loaded.

    check_outputs(config, segmentation.OUTPUTS)
    check_choices(config.eval)
"""

from functools import partial

import jax
import jax.numpy as jnp
import ml_collections

from lgg_jax import models
from lgg_jax.errors import UserError

CHOICES = {"on": (True,), "off": (False,), "choose": (False, True)}  # of a post-processing: which values to try
LOSS_TERMS = ("bce", "dice", "focal_tversky")


def check_outputs(config: ml_collections.ConfigDict, wanted: tuple[str, ...], complaint: str) -> None:
    """Raise where the network does not return exactly the outputs `wanted`; `complaint` ends the message."""
    if models.outputs(config.model) != wanted:
        given = f"config.model.name={config.model.name!r}, grade_head={config.model.grade_head}"
        remedy = f"use {models.with_outputs(wanted)}, or another config.task"
        raise UserError(f"{given} {complaint}", remedy)


def check_choices(config: ml_collections.ConfigDict) -> None:
    """Raise where `config.eval` holds something else than "on", "off" or "choose"."""
    for name in ("flip_tta", "largest_component", "fill_holes"):
        if config[name] not in CHOICES:
            raise UserError(f"config.eval.{name}={config[name]!r} is not known", "use 'on', 'off' or 'choose'")


def check_segmentation(config: ml_collections.ConfigDict) -> None:
    """Raise where `config.loss` has no segmentation loss, or where `config.eval` or a grid size does not fit."""
    if not any(config.loss[name] for name in LOSS_TERMS):
        raise UserError("config.loss has no term with a weight above 0", "set bce, dice or focal_tversky")
    check_choices(config.eval)
    check_grids(config)


def check_grids(config: ml_collections.ConfigDict) -> None:
    """Raise where the network cannot take slices of `data.size`, `eval.finer` or `train.start_size`."""
    channels = len(config.data.channels) * (1 + 2 * config.data.context)
    sizes = [config.data.size + more for more in (0, *config.eval.finer)]
    for size in sizes + [config.train.start_size] * (config.train.start_size != 0):
        image = jax.ShapeDtypeStruct((1, size, size, channels), jnp.float32)
        jax.eval_shape(partial(models.create_model(config.model).init, train=False), jax.random.key(0), image)
