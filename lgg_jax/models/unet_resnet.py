"""U-Net with a ResNet50 as encoder, and an optional classification head on the deepest features.

    model = create_model(config.model)                           # config.model.name = "unet_resnet50"
    logits = model.apply(variables, images, train=False)         # (batch, height, width), or {"mask": …, "label": …}
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections

from lgg_jax.errors import UserError
from lgg_jax.models.blocks import PRIOR_LOGIT, ChannelDropout, ConvBlock, UpConv, normalisation
from lgg_jax.models.classifier import Head, backbone_fields, backbone_input
from lgg_jax.models.resnet import ResNet50

_STRIDE = 32  # of the deepest features


class UNetResNet50(nn.Module):
    """Tumour logits for every pixel and, with a head, the logit of a binary label for every slice.

    Attributes:
      backbone: the encoder; its feature maps at strides 2 to 16 are the skip connections.
      features: channels of the decoder at full resolution; at stride s it has min(s, 16) times as many.
      head: widths of the hidden layers of the classification head; None for no head.
      dropout: dropout rate of whole channels before each decoder block, and of units in the head.
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

    @classmethod
    def create(
        cls, config: ml_collections.ConfigDict, dtype: jnp.dtype, axis_name: str | None, fixed_norm: tuple[str, ...]
    ) -> "UNetResNet50":
        """The network that `config.model` describes."""
        head = tuple(config.hidden) if config.grade_head else None
        shared = backbone_fields(config, dtype, axis_name, fixed_norm)
        return cls(features=config.features, head=head, dtype=dtype, **shared)

    @nn.compact
    def __call__(self, image: jax.Array, clinical: jax.Array | None = None, *, train: bool):
        """Slices (batch, height, width, 3) → (batch, height, width) float32.

        With a head, the result is {"mask": (batch, height, width), "label": (batch,)}, both float32. The head also
        takes the clinical values, (batch, width), if there are any.

        Raises:
          UserError: a side is not divisible by 32.
        """
        if image.shape[1] % _STRIDE or image.shape[2] % _STRIDE:
            raise UserError(
                f"slices of {image.shape[1]}×{image.shape[2]} pixels do not fit the ResNet50's stride of {_STRIDE}",
                f"make config.data.size, config.eval.finer and config.train.start_size multiples of {_STRIDE}",
            )
        x = backbone_input(image, self.input_order, self.input_scale)
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
            if level:  # the encoder has no feature map at full resolution
                x = jnp.concatenate([x, skips.pop()], axis=-1)
            x = ChannelDropout(self.dropout, deterministic=not train, name=f"dropout{level}")(x)
            train_norm = train and f"decoder{level}" not in self.fixed_norm
            norm = normalisation("batch", train_norm, self.dtype, self.axis_name)
            x = ConvBlock(width, norm, self.dtype, name=f"decoder{level}")(x)
        bias = nn.initializers.constant(PRIOR_LOGIT)
        return nn.Conv(1, (1, 1), dtype=self.dtype, bias_init=bias, name="output")(x)[..., 0].astype(jnp.float32)
