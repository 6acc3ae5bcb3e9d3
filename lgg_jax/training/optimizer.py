"""Optimizer: learning-rate schedule, Adam or AdamW, clipping, EMA, and modules that learn slower or not at all.

    check_warmup(config.optimizer, num_steps)
    optimizer = create_optimizer(config.optimizer, num_steps)

A module is selected by its name at the top level of the model, such as "backbone", or a part of it by its path, such
as "backbone/conv_stem".
"""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import ml_collections
import optax
from flax import traverse_util

from lgg_jax.errors import UserError


def check_warmup(config: ml_collections.ConfigDict, num_steps: int) -> None:
    """Raise UserError if the warm-up is longer than the run; `config` is `config.optimizer`."""
    if config.warmup_steps > num_steps:
        raise UserError(
            f"config.optimizer.warmup_steps={config.warmup_steps} is longer than the run of {num_steps} steps",
            f"choose at most {num_steps}, or a longer training",
        )


def create_schedule(config: ml_collections.ConfigDict, num_steps: int) -> optax.Schedule:
    """Return the learning rate by step: linear warm-up, then constant or a half cosine to zero at `num_steps`."""
    rate, warmup = config.learning_rate, config.warmup_steps
    if config.schedule == "cosine":
        return optax.warmup_cosine_decay_schedule(0.0, rate, warmup, max(num_steps, warmup + 1))
    if config.schedule == "constant":
        parts = [optax.linear_schedule(0.0, rate, warmup), optax.constant_schedule(rate)]
        return optax.join_schedules(parts, [warmup])
    raise UserError(f"config.optimizer.schedule={config.schedule!r} is not known", "use 'constant' or 'cosine'")


def create_optimizer(config: ml_collections.ConfigDict, num_steps: int) -> optax.GradientTransformation:
    """Return Adam or AdamW after clipping; `backbone_rate` scales one part's updates, `frozen` parts get none."""
    schedule = create_schedule(config, num_steps)
    if config.name == "adam":
        update = optax.adam(schedule)
    elif config.name == "adamw":
        update = optax.adamw(schedule, weight_decay=config.weight_decay, mask=_kernels)
    else:
        raise UserError(f"config.optimizer.name={config.name!r} is not known", "use 'adam' or 'adamw'")
    if config.clip_norm:
        update = optax.chain(optax.clip_by_global_norm(config.clip_norm), update)
    if config.backbone_rate != 1:
        backbone = partial(selected, names=("backbone",), field="optimizer.backbone_rate")
        update = optax.chain(update, optax.masked(optax.scale(config.backbone_rate), backbone))
    if config.frozen:
        labels = {True: optax.set_to_zero(), False: update}
        update = optax.partition(labels, partial(selected, names=config.frozen, field="optimizer.frozen"))
    return update


def without_gradient(params: dict, frozen: Sequence[str]) -> dict:
    """Return `params`, of which the frozen ones give no gradient: backpropagation ends after the last frozen layer."""
    stays = selected(params, frozen, "optimizer.frozen")
    return jax.tree.map(lambda leaf, stays: jax.lax.stop_gradient(leaf) if stays else leaf, params, stays)


def update_ema(ema: dict | None, variables: dict, step: jax.Array, decay: float) -> dict | None:
    """Return ema·d + variables·(1 − d), d rising to `decay` as (1 + step) / (10 + step) to forget the start."""
    if ema is None:
        return None
    rate = 1 - jnp.minimum(decay, (1 + step) / (10 + step))
    return optax.incremental_update(variables, ema, rate)


def selected(variables: dict, names: Sequence[str], field: str, missing: str = "which the model does not have") -> dict:
    """Return `variables` with True for each array in one of the named modules and False for all others.

    Args:
      variables: nested parameters or BatchNorm statistics.
      names: "module" or "module/part/…".
      field: of the config, without "config.", that gives the names.
      missing: says in the error what a name lacks that selects nothing.

    Raises:
      UserError: a name selects nothing.
    """
    paths = ["/".join(path) + "/" for path in traverse_util.flatten_dict(variables)]
    unknown = sorted(name for name in names if not any(path.startswith(f"{name}/") for path in paths))
    if unknown:
        choice = ", ".join(sorted(variables)) + (", or backbone/PART" if "backbone" in variables else "")
        wrong = f"config.{field} names {unknown}, {missing}"
        raise UserError(wrong, f"choose from {choice}" if choice else "leave it empty")
    starts = tuple(f"{name}/" for name in names)
    return traverse_util.path_aware_map(lambda path, _: "/".join((*path, "")).startswith(starts), variables)


def _kernels(params: dict) -> dict:
    """Return True for kernels: decaying biases and normalisation scales only hurts (He et al. 2019)."""
    return traverse_util.path_aware_map(lambda path, _: path[-1] == "kernel", params)
