"""Linear model of clinical values and mask features.

    model = create_model(config.model)                                # config.model.name = "linear"
    logits = model.apply(variables, images, clinical, train=False)    # (batch,); the images are ignored
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections


class Linear(nn.Module):
    """The logit of a slice, a weighted sum of clinical values and mask features.

    The weights start at zero, so that a short training keeps the weights of uninformative features near it. The number
    of parameters is the number of values + 1.
    """

    @classmethod
    def create(
        cls, _config: ml_collections.ConfigDict, _dtype: jnp.dtype, _axis_name: str | None, _fixed_norm: tuple[str, ...]
    ) -> "Linear":
        """The model; it has nothing to configure."""
        return cls()

    @nn.compact
    def __call__(self, image: jax.Array, clinical: jax.Array, train: bool) -> jax.Array:
        """(batch, …), which is ignored, and (batch, width) → (batch,) float32."""
        return nn.Dense(1, kernel_init=nn.initializers.zeros, name="output")(clinical)[..., 0]
