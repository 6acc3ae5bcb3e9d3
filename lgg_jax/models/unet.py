"""U-Net (Ronneberger et al. 2015, https://arxiv.org/abs/1505.04597) as a linen module.

    model = UNet(features=32)
    variables = model.init(jax.random.key(0), jnp.zeros((1, 256, 256, 3)), train=False)
    logits = model.apply(variables, images, train=False)     # (batch, height, width)

The architecture is that of brain-segmentation-pytorch (Buda et al. 2019): each level has two 3×3 convolutions, each
with normalisation and ReLU; the encoder uses 2×2 max pooling, the decoder 2×2 transposed convolutions. The network has
7,763,041 parameters at 32 features and 5 levels.
"""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections

from lgg_jax.errors import UserError
from lgg_jax.models.blocks import GROUPS, PRIOR_LOGIT, ChannelDropout, ConvBlock, UpConv, max_pool, normalisation


class UNet(nn.Module):
    """Tumour logits for every pixel.

    Attributes:
      features: channels of level 0; each deeper level has twice as many.
      levels: number of levels; there is one pooling between two levels.
      norm: "batch" or "group".
      dropout: dropout rate of whole channels, after the deepest level and before each decoder block.
      dtype: dtype of the computation; parameters and logits are float32.
      axis_name: the mapped axis that BatchNorm averages over, None outside a mapped function.
      fixed_norm: encoder and decoder blocks whose BatchNorm statistics are fixed during training.
    """

    features: int = 32
    levels: int = 5
    norm: str = "batch"
    dropout: float = 0.0
    dtype: jnp.dtype = jnp.float32
    axis_name: str | None = None
    fixed_norm: tuple[str, ...] = ()

    @classmethod
    def create(
        cls, config: ml_collections.ConfigDict, dtype: jnp.dtype, axis_name: str | None, fixed_norm: tuple[str, ...]
    ) -> "UNet":
        """The network that `config.model` describes."""
        return cls(config.features, config.levels, config.norm, config.dropout, dtype, axis_name, fixed_norm)

    @nn.compact
    def __call__(self, image: jax.Array, train: bool) -> jax.Array:
        """(batch, height, width, channel) → (batch, height, width) float32.

        Raises:
          UserError: a side is not divisible by 2^(levels - 1), or GroupNorm cannot split `features` into groups.
        """
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

    # Subclasses override one or more of the following methods. `width` in their docstrings is that of the level.

    def encode(self, x: jax.Array, level: int, train: bool) -> jax.Array:
        """(batch, h, w, c) → (batch, h, w, width) at level 0, (batch, h/2, w/2, width) at the others."""
        return self._block(f"encoder{level}", level, train)(x if level == 0 else max_pool(x))

    def skip(self, skip: jax.Array, _coarse: jax.Array, _level: int) -> jax.Array:
        """The features that the decoder concatenates, (batch, h, w, c).

        Args:
          skip: the encoder's features at this level, (batch, h, w, c).
          _coarse: the decoder's features one level deeper, (batch, h/2, w/2, 2c).
          _level: the level, 0 for full resolution.
        """
        return skip

    def upsample(self, x: jax.Array, level: int) -> jax.Array:
        """(batch, h, w, c) → (batch, 2h, 2w, width)."""
        return UpConv(self.width(level), self.dtype, name=f"up{level}")(x)

    def decode(self, x: jax.Array, level: int, train: bool) -> jax.Array:
        """(batch, h, w, c) → (batch, h, w, width)."""
        return self._block(f"decoder{level}", level, train)(x)

    def width(self, level: int) -> int:
        """The number of channels of a level."""
        return self.features * 2**level

    def norm_of(self, name: str, train: bool):
        """A constructor of the normalisation layers in the block `name`."""
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
