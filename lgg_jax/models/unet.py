"""U-Net (Ronneberger et al. 2015, https://arxiv.org/abs/1505.04597) as a linen module.

    model = UNet(features=32)
    variables = model.init(jax.random.key(0), jnp.zeros((1, 256, 256, 3)), train=False)
    logits = model.apply(variables, images, train=False)     # (batch, height, width)

The shape is that of brain-segmentation-pytorch (Buda et al. 2019): two 3×3 convolutions a level, each with
normalisation and ReLU, 2×2 max pooling, 2×2 transposed convolutions; 7,763,041 parameters at 32 features.
"""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections

from lgg_jax.errors import UserError
from lgg_jax.models.blocks import GROUPS, PRIOR_LOGIT, ChannelDropout, ConvBlock, UpConv, max_pool, normalisation


def create(
    config: ml_collections.ConfigDict, dtype: jnp.dtype, axis_name: str | None, fixed_norm: tuple[str, ...]
) -> "UNet":
    """The `UNet` that `config.model` describes."""
    return UNet(config.features, config.levels, config.norm, config.dropout, dtype, axis_name, fixed_norm)


class UNet(nn.Module):
    """Logits of tumour for every pixel.

    Attributes:
      features: channels of the first level; they double at each of the `levels` - 1 poolings.
      norm: "batch" or "group".
      dropout: rate of channels, before the deepest level's output and each decoder block.
      dtype: of the computation; parameters and logits stay float32.
      axis_name: the mapped axis over which BatchNorm averages, None outside of one.
      fixed_norm: names of encoder and decoder blocks whose BatchNorm keeps its statistics while training.
    """

    features: int = 32
    levels: int = 5
    norm: str = "batch"
    dropout: float = 0.0
    dtype: jnp.dtype = jnp.float32
    axis_name: str | None = None
    fixed_norm: tuple[str, ...] = ()

    @nn.compact
    def __call__(self, image: jax.Array, train: bool) -> jax.Array:
        """(batch, height, width, channel) → (batch, height, width) float32; sides divisible by 2^(levels - 1)."""
        self._check(*image.shape[1:3])
        drop = partial(ChannelDropout, self.dropout, deterministic=not train)
        x, skips = image.astype(self.dtype), []
        for level in range(self.levels):
            x = self.encode(x, level, train)
            skips.append(x)
        x = drop(name="dropout_bottom")(skips.pop())
        for level in reversed(range(self.levels - 1)):
            skip = self.skip(skips.pop(), x, level)
            x = drop(name=f"dropout{level}")(jnp.concatenate([self.upsample(x, level), skip], axis=-1))
            x = self.decode(x, level, train)
        x = nn.Conv(1, (1, 1), dtype=self.dtype, bias_init=nn.initializers.constant(PRIOR_LOGIT), name="output")(x)
        return x[..., 0].astype(jnp.float32)

    # Networks that differ from the U-Net in one of these parts override it.

    def encode(self, x: jax.Array, level: int, train: bool) -> jax.Array:
        """(batch, h, w, c) → (batch, h, w, width of the level) at level 0, half of the sides at the others."""
        return self._block(f"encoder{level}", level, train)(x if level == 0 else max_pool(x))

    def skip(self, skip: jax.Array, _coarse: jax.Array, _level: int) -> jax.Array:
        """What the decoder takes of the encoder's (batch, h, w, c), given the level below (batch, h/2, w/2, 2c)."""
        return skip

    def upsample(self, x: jax.Array, level: int) -> jax.Array:
        """(batch, h, w, c) → (batch, 2h, 2w, width of the level)."""
        return UpConv(self.width(level), self.dtype, name=f"up{level}")(x)

    def decode(self, x: jax.Array, level: int, train: bool) -> jax.Array:
        """(batch, h, w, c) → (batch, h, w, width of the level)."""
        return self._block(f"decoder{level}", level, train)(x)

    def width(self, level: int) -> int:
        """Channels of a level."""
        return self.features * 2**level

    def norm_of(self, name: str, train: bool):
        """The constructor of the normalisation within the block of this name."""
        return normalisation(self.norm, train and name not in self.fixed_norm, self.dtype, self.axis_name)

    def _block(self, name: str, level: int, train: bool) -> ConvBlock:
        return ConvBlock(self.width(level), self.norm_of(name, train), self.dtype, name=name)

    def _check(self, height: int, width: int) -> None:
        parts = 2 ** (self.levels - 1)
        if height % parts or width % parts:
            raise UserError(
                f"slices of {height}×{width} pixels cannot be halved {self.levels - 1} times (config.model.levels)",
                f"make config.data.size, config.eval.finer and config.train.start_size multiples of {parts}",
            )
        if self.norm == "group" and self.features % GROUPS:
            raise UserError(
                f"config.model.features={self.features} cannot be split into {GROUPS} groups",
                f"make it a multiple of {GROUPS} or use config.model.norm=batch",
            )
