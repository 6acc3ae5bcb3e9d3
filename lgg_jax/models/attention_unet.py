"""Attention U-Net (Oktay et al. 2018, https://arxiv.org/abs/1804.03999) as a linen module.

    model = AttentionUNet(features=32)
    variables = model.init(jax.random.key(0), jnp.zeros((1, 256, 256, 3)), train=False)
    logits = model.apply(variables, images, train=False)     # (batch, height, width)

The U-Net of `unet` with an additive attention gate on each skip connection but the first, whose features the paper
leaves ungated. 8,021,540 parameters at 32 features, 258,499 of them in the gates.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections

from lgg_jax.models.unet import UNet

# The sigmoid of 3 is 0.95: the paper starts its gates such that they let all features pass.
_OPEN = 3.0


def create(
    config: ml_collections.ConfigDict, dtype: jnp.dtype, axis_name: str | None, fixed_norm: tuple[str, ...]
) -> "AttentionUNet":
    """The `AttentionUNet` that `config.model` describes."""
    return AttentionUNet(config.features, config.levels, config.norm, config.dropout, dtype, axis_name, fixed_norm)


class AttentionGate(nn.Module):
    """Additive attention on a grid (Oktay et al. 2018, section 2.1): α · x with α in (0, 1) for each place.

    α = sigmoid(ψ(relu(W_x x + W_g g))) is computed on the coarse grid of the gating signal g and resized bilinearly.
    W_x is a 2×2 convolution of stride 2, W_g and ψ are 1×1 convolutions. The hidden channels are half of those of x,
    as in the authors' code.
    """

    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array, g: jax.Array) -> jax.Array:
        """(batch, h, w, c) and (batch, h/2, w/2, d) → (batch, h, w, c)."""
        batch, height, width, channels = x.shape
        hidden = max(1, channels // 2)
        # A convolution whose windows do not overlap is a matrix product; on a CPU its gradient is faster so.
        windows = x.reshape(batch, height // 2, 2, width // 2, 2, channels).swapaxes(2, 3)
        windows = windows.reshape(batch, height // 2, width // 2, 4 * channels)
        keys = nn.Dense(hidden, use_bias=False, dtype=self.dtype, name="input")(windows)
        gating = nn.Dense(hidden, dtype=self.dtype, name="gating")(g)
        bias = nn.initializers.constant(_OPEN)
        logits = nn.Dense(1, bias_init=bias, dtype=self.dtype, name="attention")(nn.relu(keys + gating))
        return x * jax.image.resize(nn.sigmoid(logits), (batch, height, width, 1), "linear")


class AttentionUNet(UNet):
    """Logits of tumour for every pixel; the attributes are those of `UNet`."""

    def skip(self, skip: jax.Array, coarse: jax.Array, level: int) -> jax.Array:
        """The gated features of the encoder; at level 0 all of them."""
        return AttentionGate(self.dtype, name=f"gate{level}")(skip, coarse) if level else skip
