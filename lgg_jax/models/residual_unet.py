"""Deep residual U-Net (Zhang et al. 2018, https://arxiv.org/abs/1711.10684) as a linen module.

    model = ResidualUNet(features=64, levels=4)
    variables = model.init(jax.random.key(0), jnp.zeros((1, 256, 256, 3)), train=False)
    logits = model.apply(variables, images, train=False)     # (batch, height, width)

The blocks are pre-activation residual units (He et al. 2016, https://arxiv.org/abs/1603.05027). As in the paper, the
encoder downsamples by strided convolutions, and the decoder upsamples by repeating pixels. With the 64 features and 4
levels of the paper, the network has 8,216,769 parameters, 430,272 of them in the 1×1 convolutions of the shortcuts. The
paper states 7.8 million.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from lgg_jax.models.resnet import subsample
from lgg_jax.models.unet import UNet


class ResidualUnit(nn.Module):
    """y = P x + conv(relu(norm(conv(relu(norm(x)))))): (batch, h, w, c) → (batch, h/stride, w/stride, features).

    P is a 1×1 convolution that matches the channels and the stride. If the input is an image (`activate` is False), the
    first normalisation and ReLU are omitted, as in the paper.
    """

    features: int
    stride: int
    activate: bool
    norm: nn.Module
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        out = nn.relu(self.norm(name="norm0")(x)) if self.activate else x
        for index, stride in enumerate((self.stride, 1)):
            if index:
                out = nn.relu(self.norm(name="norm1")(out))
            out = nn.Conv(
                self.features, (3, 3), stride, padding=1, use_bias=False, dtype=self.dtype, name=f"conv{index}"
            )(out)
        shortcut = nn.Dense(self.features, use_bias=False, dtype=self.dtype, name="shortcut")
        return shortcut(subsample(x, self.stride)) + out


class ResidualUNet(UNet):
    """Tumour logits for every pixel; the attributes are those of `UNet`."""

    def encode(self, x: jax.Array, level: int, train: bool) -> jax.Array:
        """(batch, h, w, c) → (batch, h, w, width) at level 0, (batch, h/2, w/2, width) at the others."""
        return self._unit(f"encoder{level}", level, train, stride=2 if level else 1, activate=level > 0)(x)

    def upsample(self, x: jax.Array, _level: int) -> jax.Array:
        """(batch, h, w, c) → (batch, 2h, 2w, c): each pixel is repeated twice along both axes."""
        return x.repeat(2, axis=1).repeat(2, axis=2)

    def decode(self, x: jax.Array, level: int, train: bool) -> jax.Array:
        """(batch, h, w, c) → (batch, h, w, width)."""
        return self._unit(f"decoder{level}", level, train, stride=1, activate=True)(x)

    def _unit(self, name: str, level: int, train: bool, stride: int, activate: bool) -> ResidualUnit:
        return ResidualUnit(self.width(level), stride, activate, self.norm_of(name, train), self.dtype, name=name)
