"""Attention U-Net (Oktay et al. 2018, https://arxiv.org/abs/1804.03999) as a linen module.

    model = AttentionUNet(features=32)
    variables = model.init(jax.random.key(0), jnp.zeros((1, 256, 256, 3)), train=False)
    logits = model.apply(variables, images, train=False)     # (batch, height, width)

The network is the U-Net of `unet` with an additive attention gate on every skip connection except the first, which
has no gate in the paper either. It has 8,021,540 parameters at 32 features, 258,499 of them in the gates.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from lgg_jax.models.unet import UNet

# The gates initially pass nearly all features, as in the paper. The value is our choice: sigmoid(3) = 0.95.
_INITIAL_BIAS = 3.0


class AttentionGate(nn.Module):
    """Additive attention (Oktay et al. 2018, section 2.1): α · x, with a coefficient α in (0, 1) for each pixel.

    α = sigmoid(ψ(relu(W_x x + W_g g))) is computed on the coarse grid of the gating signal g and resized bilinearly.
    W_x is a 2×2 convolution with stride 2; W_g and ψ are 1×1 convolutions. The hidden layer has half as many channels
    as x, as in the authors' code.
    """

    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array, g: jax.Array) -> jax.Array:
        """x (batch, h, w, c), g (batch, h/2, w/2, d) → (batch, h, w, c)."""
        batch, height, width, channels = x.shape
        hidden = max(1, channels // 2)
        # The windows of this convolution do not overlap. As a matrix product, its gradient is faster on a CPU.
        windows = x.reshape(batch, height // 2, 2, width // 2, 2, channels).swapaxes(2, 3)
        windows = windows.reshape(batch, height // 2, width // 2, 4 * channels)
        keys = nn.Dense(hidden, use_bias=False, dtype=self.dtype, name="input")(windows)
        gating = nn.Dense(hidden, dtype=self.dtype, name="gating")(g)
        bias = nn.initializers.constant(_INITIAL_BIAS)
        logits = nn.Dense(1, bias_init=bias, dtype=self.dtype, name="attention")(nn.relu(keys + gating))
        return x * jax.image.resize(nn.sigmoid(logits), (batch, height, width, 1), "linear")


class AttentionUNet(UNet):
    """Tumour logits for every pixel; the attributes are those of `UNet`."""

    def skip(self, skip: jax.Array, coarse: jax.Array, level: int) -> jax.Array:
        """The encoder's features (batch, h, w, c) after the gate; level 0 has no gate."""
        return AttentionGate(self.dtype, name=f"gate{level}")(skip, coarse) if level else skip
