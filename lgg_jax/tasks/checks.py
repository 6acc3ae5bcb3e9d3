"""Checks of a config that several tasks share. They raise UserError before any data is loaded.

    check_outputs(config, segmentation.OUTPUTS, "does not give a mask alone")
    check_postprocessing(config.eval)
"""

from functools import partial

import jax
import jax.numpy as jnp
import ml_collections

from lgg_jax import models
from lgg_jax.config import check_choice
from lgg_jax.errors import UserError

CHOICES = {"on": (True,), "off": (False,), "choose": (False, True)}  # value in the config → options to compare
LOSS_TERMS = ("bce", "dice", "focal_tversky")


def check_outputs(config: ml_collections.ConfigDict, wanted: tuple[str, ...], complaint: str) -> None:
    """Raise UserError if the outputs of the network are not exactly `wanted`; `complaint` completes the message."""
    if models.outputs(config.model) != wanted:
        model = f"config.model.name={config.model.name!r}, grade_head={config.model.grade_head}"
        remedy = f"use {models.with_outputs(wanted)}, or another config.task"
        raise UserError(f"{model} {complaint}", remedy)


def check_postprocessing(config: ml_collections.ConfigDict) -> None:
    """Raise UserError if an option of `config.eval` is not "on", "off" or "choose"."""
    for name in ("flip_tta", "largest_component", "fill_holes"):
        check_choice(f"eval.{name}", config[name], CHOICES)


def check_segmentation(config: ml_collections.ConfigDict) -> None:
    """Raise UserError if there is no segmentation loss, an option is unknown, or a grid does not fit the network."""
    if not any(config.loss[name] for name in LOSS_TERMS):
        raise UserError("config.loss has no term with a weight above 0", "set bce, dice or focal_tversky")
    check_postprocessing(config.eval)
    check_grids(config)


def check_grids(config: ml_collections.ConfigDict) -> None:
    """Raise UserError if the network does not accept slices of `data.size`, `eval.finer` or `train.start_size`."""
    channels = len(config.data.channels) * (1 + 2 * config.data.context)
    sizes = [config.data.size + more for more in (0, *config.eval.finer)]
    for size in sizes + [config.train.start_size] * (config.train.start_size != 0):
        image = jax.ShapeDtypeStruct((1, size, size, channels), jnp.float32)
        jax.eval_shape(partial(models.create_model(config.model).init, train=False), jax.random.key(0), image)
