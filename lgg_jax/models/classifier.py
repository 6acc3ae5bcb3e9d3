"""A ResNet50, global pooling and fully connected layers: the logit of one answer about a slice.

    model = create_model(config.model)                                # config.model.name = "classifier"
    variables = model.init(jax.random.key(0), images, clinical, train=False)
    logits = model.apply(variables, images, clinical, train=False)    # (batch,)
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections

from lgg_jax.models import resnet
from lgg_jax.models.resnet import ResNet50

_CLINICAL = 16  # width of the clinical values' own layer


def as_expected(image: jax.Array, order: str, scale: tuple[float, ...]) -> jax.Array:
    """Normalised slices (batch, height, width, 3) in the order of channels and the range that weights expect."""
    return (image[..., ::-1] if order == "BGR" else image) * jnp.asarray(scale, jnp.float32)


def backbone_fields(
    config: ml_collections.ConfigDict, dtype: jnp.dtype, axis_name: str | None, fixed_norm: tuple[str, ...]
) -> dict:
    """The fields that a network with a ResNet50 backbone takes from `config.model`."""
    return {
        "backbone": resnet.create(config, dtype, axis_name, fixed_norm), "input_order": config.input_order,
        "input_scale": tuple(config.input_scale), "dropout": config.dropout, "fixed_norm": fixed_norm,
        "axis_name": axis_name,
    }  # fmt: skip


def create(
    config: ml_collections.ConfigDict, dtype: jnp.dtype, axis_name: str | None, fixed_norm: tuple[str, ...]
) -> "Classifier":
    """The `Classifier` that `config.model` describes."""
    return Classifier(hidden=tuple(config.hidden), **backbone_fields(config, dtype, axis_name, fixed_norm))


class Head(nn.Module):
    """(batch, feature), (batch, width) → (batch,) logits, float32.

    Each layer of `hidden` is fully connected, with BatchNorm, ReLU and dropout. Clinical values pass a small layer of
    their own and join before the last one; (batch, 0) where there are none.
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
    """Logits of one yes-or-no answer for every slice.

    Attributes:
      backbone: gives the features; those at stride 32 are averaged over the slice.
      hidden, dropout: of the fully connected layers.
      input_order, input_scale: what the backbone's weights expect, see `as_expected`.
      fixed_norm: top-level modules ("backbone", "head") whose BatchNorm keeps its statistics while training.
      axis_name: the mapped axis over which BatchNorm averages, None outside of one.
    """

    backbone: ResNet50
    hidden: tuple[int, ...] = (256,)
    dropout: float = 0.0
    input_order: str = "RGB"
    input_scale: tuple[float, float, float] = (1.0, 1.0, 1.0)
    fixed_norm: tuple[str, ...] = ()
    axis_name: str | None = None

    def setup(self):
        self.head = Head(self.hidden, self.dropout, self.axis_name)

    def __call__(self, image: jax.Array, clinical: jax.Array, train: bool) -> jax.Array:
        """(batch, height, width, 3), or features (batch, 2048), and (batch, width) → (batch,) float32."""
        features = image if image.ndim == 2 else self.features(image, train)
        return self.head(features, clinical, train and "head" not in self.fixed_norm)

    def features(self, image: jax.Array, train: bool = False) -> jax.Array:
        """(batch, height, width, 3) → (batch, 2048) float32."""
        x = as_expected(image, self.input_order, self.input_scale)
        deepest = self.backbone(x, train and "backbone" not in self.fixed_norm)[-1]
        return deepest.astype(jnp.float32).mean(axis=(1, 2))
