"""Linen modules. `create_model(config.model)` makes the one a config names."""

from collections.abc import Sequence

import jax.numpy as jnp
import ml_collections
import numpy as np
from flax import linen as nn

from lgg_jax import workdir as workdir_lib
from lgg_jax.data.volume import SEQUENCES
from lgg_jax.errors import UserError
from lgg_jax.models.classifier import Classifier, Linear
from lgg_jax.models.resnet import ResNet50
from lgg_jax.models.unet import UNet
from lgg_jax.models.unet_resnet import UNetResNet50
from lgg_jax.weights.pretrained import Pretrained, from_zscore, read_pretrained

NAMES = ("unet", "unet_resnet50", "classifier", "linear")
WITHOUT_BACKBONE = ("unet", "linear")
EXPECTED = ("stride_on_first", "norm_epsilon", "input_order", "input_scale")  # what weights of a ResNet50 expect


def create_model(
    config: ml_collections.ConfigDict, axis_name: str | None = None, frozen: tuple[str, ...] = ()
) -> nn.Module:
    """The module that `config.name` asks for.

    Args:
      config: `config.model`.
      axis_name: the mapped axis that BatchNorm averages over.
      frozen: modules and parts of them that are not trained; neither do their BatchNorm statistics move.
    """
    _check_name(config.name)
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


def resolve(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """The config with what its weights, of `init_from` or `model.pretrained`, expect of the model and its input.

    So a workdir says it all, and is evaluated where the weights file is not. UserError where the model and the rest
    of the config do not fit.
    """
    model = config.model
    _check_name(model.name)
    _check_channels(config.data.channels)
    remedy = "config.init_from is the workdir of a training run, which a resume needs as well"
    before = workdir_lib.read_config(config.init_from, remedy) if config.init_from else None
    if before is not None and tuple(before.data.channels) != tuple(config.data.channels):
        seen, given = (tuple(each.data.channels) for each in (before, config))
        raise UserError(f"{config.init_from} was trained on {seen}, not {given}", f"set config.data.channels={seen}")
    if model.name in WITHOUT_BACKBONE:
        if model.pretrained:
            raise UserError(
                f"config.model.pretrained={model.pretrained}: config.model.name={model.name!r} has no pretrained part",
                "leave it empty, or set config.model.name=unet_resnet50",
            )
        return config
    if config.data.context:
        raise UserError(f"config.data.context={config.data.context}: a ResNet50 takes three channels", "set it to 0")
    if len(config.data.channels) != 3:
        given = f"config.data.channels={tuple(config.data.channels)}"
        raise UserError(f"{given}: a ResNet50 takes three channels", "name three, or use config.model.name=unet")
    config = config.copy_and_resolve_references()
    if before is not None:
        config.model.update({name: before.model.get(name, model[name]) for name in EXPECTED})
    elif model.pretrained:
        config.model.update(_expected(read_pretrained(model.pretrained)))
    return config


def _expected(weights: Pretrained) -> dict:
    scale = from_zscore(np.ones(3, np.float32), weights)
    values = weights.stride_on_first, weights.epsilon, weights.channel_order, tuple(float(x) for x in scale)
    return dict(zip(EXPECTED, values, strict=True))


def _check_channels(names: Sequence[str]) -> None:
    if not names or len(set(names)) < len(names) or not set(names) <= set(SEQUENCES):
        wrong = f"config.data.channels={tuple(names)} does not name different sequences"
        known = ", ".join(SEQUENCES)
        remedy = f"choose from {known}, each once, in the order for the network to see, as in \"('flair', 't1ce')\""
        raise UserError(wrong, remedy)


def _check_name(name: str) -> None:
    if name not in NAMES:
        raise UserError(f"config.model.name={name!r} is not known", f"use one of {', '.join(NAMES)}")
