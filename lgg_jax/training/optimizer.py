"""Optimizer: learning-rate schedule, Adam or AdamW, gradient clipping, EMA, frozen modules and a backbone rate.

    check_warmup(config.optimizer, num_steps)
    optimizer = create_optimizer(config.optimizer, num_steps)

A top-level module is selected by its name, such as "backbone", and a part of a module by its path, such as
"backbone/conv_stem".
"""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import ml_collections
import optax
from flax import traverse_util

from lgg_jax.config import check_choice
from lgg_jax.errors import UserError


def check_warmup(config: ml_collections.ConfigDict, num_steps: int) -> None:
    """Raise UserError if the warm-up is longer than the run; `config` is `config.optimizer`."""
    if config.warmup_steps > num_steps:
        raise UserError(
            f"config.optimizer.warmup_steps={config.warmup_steps} is longer than the run of {num_steps} steps",
            f"choose at most {num_steps}, or train for more steps",
        )


def create_schedule(config: ml_collections.ConfigDict, num_steps: int) -> optax.Schedule:
    """Return the learning-rate schedule: linear warm-up, then constant or cosine decay to zero at `num_steps`."""
    check_choice("optimizer.schedule", config.schedule, ("constant", "cosine"))
    rate, warmup = config.learning_rate, config.warmup_steps
    if config.schedule == "cosine":
        return optax.warmup_cosine_decay_schedule(0.0, rate, warmup, max(num_steps, warmup + 1))
    parts = [optax.linear_schedule(0.0, rate, warmup), optax.constant_schedule(rate)]
    return optax.join_schedules(parts, [warmup])


def create_optimizer(config: ml_collections.ConfigDict, num_steps: int) -> optax.GradientTransformation:
    """Return Adam or AdamW with gradient clipping.

    The updates of the module "backbone" are multiplied by `backbone_rate`. The modules in `frozen` are not updated, and
    their gradients do not count for the clipping.
    """
    schedule = create_schedule(config, num_steps)
    check_choice("optimizer.name", config.name, ("adam", "adamw"))
    if config.name == "adam":
        update = optax.adam(schedule)
    else:
        update = optax.adamw(schedule, weight_decay=config.weight_decay, mask=_kernels)
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
    """Return `params` without gradients for the frozen modules: backpropagation stops after the last frozen layer."""
    is_frozen = selected(params, frozen, "optimizer.frozen")
    return jax.tree.map(lambda leaf, stop: jax.lax.stop_gradient(leaf) if stop else leaf, params, is_frozen)


def update_ema(ema: dict | None, variables: dict, step: jax.Array, decay: float) -> dict | None:
    """Return ema·d + variables·(1 − d), or None without EMA.

    d = min(decay, (1 + step) / (10 + step)). It is small at first, so that the initial weights have little influence.
    """
    if ema is None:
        return None
    rate = 1 - jnp.minimum(decay, (1 + step) / (10 + step))
    return optax.incremental_update(variables, ema, rate)


def selected(variables: dict, names: Sequence[str], field: str, missing: str = "which the model does not have") -> dict:
    """Return the tree of `variables` with True for arrays in the named modules and False for all others.

    Args:
      variables: nested parameters or BatchNorm statistics.
      names: "module" or "module/part/…".
      field: the field of the config, without "config.", that contains the names; for the error message.
      missing: describes a name that selects no array; for the error message.

    Raises:
      UserError: a name selects no array.
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
    """Return True for kernels. Decay of biases and normalisation scales lowers the accuracy (He et al. 2019)."""
    return traverse_util.path_aware_map(lambda path, _: path[-1] == "kernel", params)
