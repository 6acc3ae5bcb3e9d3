"""Classifier: a ResNet50, global average pooling and fully connected layers.

    model = create_model(config.model)                                # config.model.name = "classifier"
    variables = model.init(jax.random.key(0), images, clinical, train=False)
    logits = model.apply(variables, images, clinical, train=False)    # (batch,)
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections

from lgg_jax.models.resnet import ResNet50

_CLINICAL = 16  # width of the layer for clinical values


def backbone_input(image: jax.Array, order: str, scale: tuple[float, ...]) -> jax.Array:
    """Convert normalised slices to the channel order and the range that the weights of the backbone expect.

    Args:
      image: (batch, height, width, 3).
      order: "RGB", or "BGR" to reverse the channels.
      scale: a factor for each channel, in the new order.
    """
    return (image[..., ::-1] if order == "BGR" else image) * jnp.asarray(scale, jnp.float32)


def backbone_fields(
    config: ml_collections.ConfigDict, dtype: jnp.dtype, axis_name: str | None, fixed_norm: tuple[str, ...]
) -> dict:
    """The fields from `config.model` that every network with a ResNet50 backbone has."""
    return {
        "backbone": ResNet50.create(config, dtype, axis_name, fixed_norm), "input_order": config.input_order,
        "input_scale": tuple(config.input_scale), "dropout": config.dropout, "fixed_norm": fixed_norm,
        "axis_name": axis_name,
    }  # fmt: skip


class Head(nn.Module):
    """Fully connected layers: features (batch, feature) and clinical values (batch, width) → logits (batch,) float32.

    Each layer of `hidden` has BatchNorm, ReLU and dropout. The clinical values pass a small layer of their own. Its
    output is concatenated to the input of the last layer. A width of 0 means that there are no clinical values.
    """

    hidden: tuple[int, ...]
    dropout: float
    axis_name: str | None

    @nn.compact
    def __call__(self, features: jax.Array, clinical: jax.Array, train: bool) -> jax.Array:
        x = features.astype(jnp.float32)
        for index, width in enumerate(self.hidden):
            x = nn.Dense(width, use_bias=False, name=f"dense{index}")(x)
            x = nn.BatchNorm(not train, momentum=0.9, axis_name=self.axis_name, name=f"norm{index}")(x)
            x = nn.Dropout(self.dropout, deterministic=not train, name=f"dropout{index}")(nn.relu(x))
        if clinical.shape[-1]:
            x = jnp.concatenate([x, nn.relu(nn.Dense(_CLINICAL, name="clinical")(clinical))], axis=-1)
        return nn.Dense(1, name="output")(x)[..., 0]


class Classifier(nn.Module):
    """Logits of a binary label for every slice.

    Attributes:
      backbone: computes the feature maps; those at stride 32 are averaged over the slice.
      hidden: widths of the fully connected layers of the head.
      dropout: dropout rate in the head.
      input_order, input_scale: arguments of `backbone_input`; the weights of the backbone determine them.
      fixed_norm: top-level modules ("backbone", "head") whose BatchNorm statistics are fixed during training.
      axis_name: the mapped axis that BatchNorm averages over, None outside a mapped function.
    """

    backbone: ResNet50
    hidden: tuple[int, ...] = (256,)
    dropout: float = 0.0
    input_order: str = "RGB"
    input_scale: tuple[float, float, float] = (1.0, 1.0, 1.0)
    fixed_norm: tuple[str, ...] = ()
    axis_name: str | None = None

    @classmethod
    def create(
        cls, config: ml_collections.ConfigDict, dtype: jnp.dtype, axis_name: str | None, fixed_norm: tuple[str, ...]
    ) -> "Classifier":
        """The network that `config.model` describes."""
        return cls(hidden=tuple(config.hidden), **backbone_fields(config, dtype, axis_name, fixed_norm))

    def setup(self):
        self.head = Head(self.hidden, self.dropout, self.axis_name)

    def __call__(self, image: jax.Array, clinical: jax.Array, train: bool) -> jax.Array:
        """Slices (batch, height, width, 3) or their features (batch, 2048), and (batch, width) → (batch,) float32."""
        features = image if image.ndim == 2 else self.features(image, train)
        return self.head(features, clinical, train and "head" not in self.fixed_norm)

    def features(self, image: jax.Array, train: bool = False) -> jax.Array:
        """(batch, height, width, 3) → (batch, 2048) float32."""
        x = backbone_input(image, self.input_order, self.input_scale)
        deepest = self.backbone(x, train and "backbone" not in self.fixed_norm)[-1]
        return deepest.astype(jnp.float32).mean(axis=(1, 2))
