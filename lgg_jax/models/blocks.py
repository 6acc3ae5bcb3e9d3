"""What several networks are built of.

    x = ConvBlock(32, normalisation("batch", train, jnp.float32, axis_name), jnp.float32)(x)
"""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from lgg_jax.errors import UserError

GROUPS = 8  # of GroupNorm
# Logit of 0.02, about the share of tumour among all pixels: a training starts at the prior and does not spend its
# first hundred steps on finding out that most of a head is no tumour (Lin et al. 2017, section 4.1).
PRIOR_LOGIT = -3.9
# Whole channels of a slice (Tompson et al. 2015, https://arxiv.org/abs/1411.4280): a pixel's neighbours still tell what
# it said, and to draw each pixel takes a quarter of a training step on a CPU, to draw channels 3 %.
ChannelDropout = partial(nn.Dropout, broadcast_dims=(1, 2))


class ConvBlock(nn.Module):
    """Twice a 3×3 convolution, normalisation and ReLU; keeps (batch, height, width), changes channels."""

    features: int
    norm: nn.Module
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for index in range(2):
            x = nn.Conv(self.features, (3, 3), use_bias=False, dtype=self.dtype, name=f"conv{index}")(x)
            x = nn.relu(self.norm(name=f"norm{index}")(x))
        return x


class UpConv(nn.Module):
    """2×2 transposed convolution of stride 2: (batch, h, w, c) → (batch, 2h, 2w, features).

    Its windows do not overlap, so it is one matrix product followed by a reshape; on a CPU that makes the whole
    training step a third faster than `nn.ConvTranspose`, whose gradient XLA computes with a dilated convolution.
    """

    features: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        batch, height, width, channels = x.shape
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (2, 2, channels, self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
        x = jnp.einsum("bhwc,ijcf->bhiwjf", x, kernel) + bias
        return x.reshape(batch, 2 * height, 2 * width, self.features)


def max_pool(x: jax.Array) -> jax.Array:
    """2×2 maxima by reshape: (batch, h, w, c) → (batch, h/2, w/2, c); its gradient needs no window search."""
    batch, height, width, channels = x.shape
    return x.reshape(batch, height // 2, 2, width // 2, 2, channels).max(axis=(2, 4))


def normalisation(kind: str, train: bool, dtype: jnp.dtype, axis_name: str | None):
    """A constructor for BatchNorm (statistics averaged over `axis_name` while training) or GroupNorm."""
    if kind == "batch":
        return partial(nn.BatchNorm, not train, momentum=0.9, epsilon=1e-5, dtype=dtype, axis_name=axis_name)
    if kind == "group":
        return partial(nn.GroupNorm, num_groups=GROUPS, epsilon=1e-5, dtype=dtype)
    raise UserError(f"config.model.norm={kind!r} is not known", "use 'batch' or 'group'")
