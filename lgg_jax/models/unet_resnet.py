"""A U-Net whose encoder is a ResNet50, with a grade head on its deepest features where asked for.

    model = create_model(config.model)                           # config.model.name = "unet_resnet50"
    logits = model.apply(variables, images, train=False)         # (batch, height, width), or {"mask", "label"}
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections

from lgg_jax.errors import UserError
from lgg_jax.models.blocks import PRIOR_LOGIT, ChannelDropout, ConvBlock, UpConv, normalisation
from lgg_jax.models.classifier import Head, as_expected, backbone_fields
from lgg_jax.models.resnet import ResNet50

_DEEPEST = 32  # stride of the deepest features


def create(
    config: ml_collections.ConfigDict, dtype: jnp.dtype, axis_name: str | None, fixed_norm: tuple[str, ...]
) -> "UNetResNet50":
    """The `UNetResNet50` that `config.model` describes."""
    head = tuple(config.hidden) if config.grade_head else None
    shared = backbone_fields(config, dtype, axis_name, fixed_norm)
    return UNetResNet50(features=config.features, head=head, dtype=dtype, **shared)


class UNetResNet50(nn.Module):
    """Logits of tumour for every pixel, and of the answer about the slice where there is a head.

    Attributes:
      backbone: the encoder; its maps at strides 2 to 16 are the skip connections.
      features: channels of the decoder at full resolution; at stride s it has min(s, 16) times as many.
      head: widths of the grade head's hidden layers; None for no head.
      dropout: rate of channels before each decoder block, and in the head.
      input_order, input_scale, fixed_norm, dtype, axis_name: as in `Classifier` and `UNet`.
    """

    backbone: ResNet50
    features: int = 16
    head: tuple[int, ...] | None = None
    dropout: float = 0.0
    dtype: jnp.dtype = jnp.float32
    axis_name: str | None = None
    input_order: str = "RGB"
    input_scale: tuple[float, float, float] = (1.0, 1.0, 1.0)
    fixed_norm: tuple[str, ...] = ()

    @nn.compact
    def __call__(self, image: jax.Array, clinical: jax.Array | None = None, *, train: bool):
        """(batch, height, width, 3) → (batch, height, width) float32; with a head {"mask": that, "label": (batch,)}.

        `clinical`, (batch, width), goes into the head; without it the head sees the image alone.
        """
        if image.shape[1] % _DEEPEST or image.shape[2] % _DEEPEST:
            raise UserError(
                f"slices of {image.shape[1]}×{image.shape[2]} pixels do not fit the ResNet50's stride of {_DEEPEST}",
                f"make config.data.size, and config.eval.finer, multiples of {_DEEPEST}",
            )
        x = as_expected(image, self.input_order, self.input_scale)
        *skips, deepest = self.backbone(x, train and "backbone" not in self.fixed_norm)
        mask = self._decode(deepest, skips, train)
        if self.head is None:
            return mask
        pooled = deepest.astype(jnp.float32).mean(axis=(1, 2))
        head = Head(self.head, self.dropout, self.axis_name, name="head")
        clinical = jnp.zeros((len(image), 0)) if clinical is None else clinical
        return {"mask": mask, "label": head(pooled, clinical, train and "head" not in self.fixed_norm)}

    def _decode(self, x: jax.Array, skips: list[jax.Array], train: bool) -> jax.Array:
        for level in reversed(range(5)):
            width = self.features * min(2**level, 16)
            x = UpConv(width, self.dtype, name=f"up{level}")(x)
            if level:  # full resolution has no map of the encoder
                x = jnp.concatenate([x, skips.pop()], axis=-1)
            x = ChannelDropout(self.dropout, deterministic=not train, name=f"dropout{level}")(x)
            moving = train and f"decoder{level}" not in self.fixed_norm
            norm = normalisation("batch", moving, self.dtype, self.axis_name)
            x = ConvBlock(width, norm, self.dtype, name=f"decoder{level}")(x)
        bias = nn.initializers.constant(PRIOR_LOGIT)
        return nn.Conv(1, (1, 1), dtype=self.dtype, bias_init=bias, name="output")(x)[..., 0].astype(jnp.float32)
