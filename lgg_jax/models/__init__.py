"""Linen modules. `create_model(config.model)` makes the one a config names."""

import jax.numpy as jnp
import ml_collections

from lgg_jax.errors import UserError
from lgg_jax.models.unet import UNet


def create_model(config: ml_collections.ConfigDict, axis_name: str | None = None) -> UNet:
    """The module that `config.name` asks for; `axis_name` is the mapped axis that BatchNorm averages over."""
    if config.name != "unet":
        raise UserError(f"config.model.name={config.name!r} is not known", "use 'unet'")
    if config.dtype not in ("float32", "bfloat16"):
        raise UserError(f"config.model.dtype={config.dtype!r} is not known", "use 'float32' or 'bfloat16'")
    if config.pretrained:
        raise UserError(f"config.model.pretrained={config.pretrained}: a U-Net has none", "leave it empty")
    return UNet(
        config.features, config.levels, config.norm, config.dropout, jnp.dtype(config.dtype).type, axis_name
    )
