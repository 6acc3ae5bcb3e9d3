"""Building blocks that several networks share.

    x = ConvBlock(32, normalisation("batch", train, jnp.float32, axis_name), jnp.float32)(x)
"""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

GROUPS = 8  # number of groups of GroupNorm
# The initial bias of the output: the logit of 0.02, about the fraction of tumour pixels. The predictions start at this
# prior; otherwise the first hundred steps mainly learn that most pixels are background (Lin et al. 2017, section 4.1).
PRIOR_LOGIT = -3.9
# Dropout of whole channels (Tompson et al. 2015, https://arxiv.org/abs/1411.4280): neighbouring pixels are correlated,
# so the network can restore a single dropped pixel. On a CPU, sampling every pixel takes a quarter of a training step,
# sampling every channel 3 %.
ChannelDropout = partial(nn.Dropout, broadcast_dims=(1, 2))


class ConvBlock(nn.Module):
    """Two layers of 3×3 convolution, normalisation and ReLU: (batch, h, w, c) → (batch, h, w, features)."""

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
    """2×2 transposed convolution with stride 2: (batch, h, w, c) → (batch, 2h, 2w, features).

    Its windows do not overlap, so it is computed as one matrix product and a reshape. On a CPU the whole training step
    is a third faster than with `nn.ConvTranspose`, whose gradient XLA computes as a dilated convolution.
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
    """2×2 max pooling by reshape, whose gradient needs no window search: (batch, h, w, c) → (batch, h/2, w/2, c)."""
    batch, height, width, channels = x.shape
    return x.reshape(batch, height // 2, 2, width // 2, 2, channels).max(axis=(2, 4))


def normalisation(kind: str, train: bool, dtype: jnp.dtype, axis_name: str | None):
    """A constructor of a normalisation layer.

    Args:
      kind: "batch" for BatchNorm, "group" for GroupNorm.
      train: whether BatchNorm uses the statistics of the batch, averaged over `axis_name`, and updates the running
        statistics. Otherwise it uses the running statistics.
      dtype: dtype of the computation.
      axis_name: a mapped axis, or None.
    """
    return {
        "batch": partial(nn.BatchNorm, not train, momentum=0.9, epsilon=1e-5, dtype=dtype, axis_name=axis_name),
        "group": partial(nn.GroupNorm, num_groups=GROUPS, epsilon=1e-5, dtype=dtype),
    }[kind]
