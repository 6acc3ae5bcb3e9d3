"""Linen modules. `create_model(config.model)` makes the one a config names."""

import jax.numpy as jnp
import ml_collections
from flax import linen as nn

from lgg_jax.errors import UserError
from lgg_jax.models.classifier import Classifier, Linear
from lgg_jax.models.resnet import ResNet50
from lgg_jax.models.unet import UNet
from lgg_jax.models.unet_resnet import UNetResNet50

NAMES = ("unet", "unet_resnet50", "classifier", "linear")
WITHOUT_BACKBONE = ("unet", "linear")


def create_model(
    config: ml_collections.ConfigDict, axis_name: str | None = None, frozen: tuple[str, ...] = ()
) -> nn.Module:
    """The module that `config.name` asks for.

    Args:
      config: `config.model`.
      axis_name: the mapped axis that BatchNorm averages over.
      frozen: modules and parts of them that are not trained; neither do their BatchNorm statistics move.
    """
    check_name(config.name)
    if config.dtype not in ("float32", "bfloat16"):
        raise UserError(f"config.model.dtype={config.dtype!r} is not known", "use 'float32' or 'bfloat16'")
    dtype, fixed = jnp.dtype(config.dtype).type, (*config.fixed_norm, *frozen)
    deep = [name for name in fixed if "/" in name and not (name.startswith("backbone/") and name.count("/") == 1)]
    if deep:
        remedy = "name whole modules, and of parts only those of the backbone, such as backbone/conv_stem"
        raise UserError(f"config.optimizer.frozen or config.model.fixed_norm names {deep}", remedy)
    if config.name != "unet" and config.norm != "batch":
        wrong = f"config.model.norm={config.norm!r}: config.model.name={config.name!r} has no other than BatchNorm"
        raise UserError(wrong, "set it to 'batch', or use config.model.name=unet")
    if config.name == "unet":
        return UNet(config.features, config.levels, config.norm, config.dropout, dtype, axis_name, fixed)
    if config.name == "linear":
        return Linear()
    parts = tuple(name.removeprefix("backbone/") for name in fixed if "/" in name)
    backbone = ResNet50(config.stride_on_first, 0, config.norm_epsilon, dtype, axis_name, parts)
    shared = {
        "backbone": backbone, "input_order": config.input_order, "input_scale": tuple(config.input_scale),
        "dropout": config.dropout, "fixed_norm": fixed,
    }  # fmt: skip
    if config.name == "classifier":
        return Classifier(hidden=tuple(config.hidden), axis_name=axis_name, **shared)
    head = tuple(config.hidden) if config.grade_head else None
    return UNetResNet50(features=config.features, head=head, dtype=dtype, axis_name=axis_name, **shared)


def check_name(name: str) -> None:
    if name not in NAMES:
        raise UserError(f"config.model.name={name!r} is not known", f"use one of {', '.join(NAMES)}")
