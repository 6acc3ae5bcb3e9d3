"""Linear model of clinical values and mask features.

    model = create_model(config.model)                                # config.model.name = "linear"
    logits = model.apply(variables, images, clinical, train=False)    # (batch,); the images are ignored
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections


def create(_config: ml_collections.ConfigDict, _dtype: jnp.dtype, _axis_name: str | None, _fixed_norm) -> "Linear":
    """The `Linear` model. It has nothing to configure."""
    return Linear()


class Linear(nn.Module):
    """Logit of a slice as a weighted sum of clinical values and mask features; the slice is not looked at.

    The weights start at zero, so that a short training keeps the weights of uninformative features near it.
    """

    @nn.compact
    def __call__(self, image: jax.Array, clinical: jax.Array, train: bool) -> jax.Array:
        """(batch, …), which is ignored, and (batch, width) → (batch,) float32."""
        return nn.Dense(1, kernel_init=nn.initializers.zeros, name="output")(clinical)[..., 0]
