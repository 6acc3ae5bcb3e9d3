"""ResNet50 (He et al. 2016, https://arxiv.org/abs/1512.03385) as a linen module.

    model = ResNet50(stride_on_first=True)
    variables = model.init(jax.random.key(0), jnp.zeros((1, 224, 224, 3)), train=False)
    stem, *stages = model.apply(variables, images, train=False)     # strides 2; 4, 8, 16, 32

Padding is explicit, as in the networks whose weights are converted (lgg_jax/weights); with SAME padding, every strided
convolution would be shifted by a pixel. The network has 25,557,032 parameters with the layer for the 1000 classes of
ImageNet, and 23,508,032 without it.
"""

from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections

BLOCKS = (3, 4, 6, 3)
WIDTHS = (64, 128, 256, 512)
EXPANSION = 4


class Bottleneck(nn.Module):
    """Residual block of 1×1, 3×3 and 1×1 convolutions: (batch, h, w, c) → (batch, h/stride, w/stride, 4·width).

    The first block of a stage (`project`) has a 1×1 convolution in its shortcut. The stride is in the first 1×1
    convolution if `stride_on_first`, as in the paper and in Keras ("v1"), else in the 3×3 convolution, as in
    torchvision ("v1.5").
    """

    width: int
    stride: int
    project: bool
    stride_on_first: bool
    conv: nn.Module
    norm: nn.Module

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        first, second = (self.stride, 1) if self.stride_on_first else (1, self.stride)
        pointwise = partial(self.conv, kernel_size=(1, 1), conv_general_dilated=_matrix_product)
        out = pointwise(self.width, name="conv1")(subsample(x, first))
        out = nn.relu(self.norm(name="norm1")(out))
        out = self.conv(self.width, (3, 3), second, padding=1, name="conv2")(out)
        out = nn.relu(self.norm(name="norm2")(out))
        out = self.norm(name="norm3")(pointwise(EXPANSION * self.width, name="conv3")(out))
        if self.project:
            x = pointwise(EXPANSION * self.width, name="conv_proj")(subsample(x, self.stride))
            x = self.norm(name="norm_proj")(x)
        return nn.relu(x + out)


def _matrix_product(x: jax.Array, kernel: jax.Array, *_, **__) -> jax.Array:
    """1×1 convolution with the signature that linen expects. On a CPU it makes the training step a third faster."""
    return jnp.einsum("bhwc,cf->bhwf", x, kernel[0, 0])


def subsample(x: jax.Array, stride: int) -> jax.Array:
    """Every `stride`-th pixel along both axes.

    A 1×1 convolution of these pixels equals a strided 1×1 convolution, but its gradient needs no dilated convolution.
    """
    return x[:, ::stride, ::stride] if stride > 1 else x


class ResNet50(nn.Module):
    """Feature maps of an image, or the logits of its class.

    Attributes:
      stride_on_first: position of the stride, see `Bottleneck`; the weights determine it.
      num_classes: 0 to return feature maps; otherwise pooling and a layer `head` with this many logits are added.
      epsilon: epsilon of BatchNorm; the weights determine it.
      dtype: dtype of the computation; parameters and logits are float32.
      axis_name: the mapped axis that BatchNorm averages over, None outside a mapped function.
      fixed_norm: parts ("norm_stem", "stage1_block0", …) whose BatchNorm statistics are fixed during training.
    """

    stride_on_first: bool
    num_classes: int = 0
    epsilon: float = 1e-5
    dtype: jnp.dtype = jnp.float32
    axis_name: str | None = None
    fixed_norm: tuple[str, ...] = ()

    @classmethod
    def create(
        cls, config: ml_collections.ConfigDict, dtype: jnp.dtype, axis_name: str | None, fixed_norm: tuple[str, ...]
    ) -> "ResNet50":
        """The backbone that `config.model` describes.

        Args:
          fixed_norm: modules of the whole network; "backbone/stage1_block0" applies to the part "stage1_block0".
        """
        parts = tuple(name.removeprefix("backbone/") for name in fixed_norm if "/" in name)
        return cls(config.stride_on_first, 0, config.norm_epsilon, dtype, axis_name, parts)

    @nn.compact
    def __call__(self, image: jax.Array, train: bool) -> list[jax.Array] | jax.Array:
        """Compute feature maps or logits.

        Args:
          image: (batch, height, width, channel), normalised as the weights expect.
          train: whether BatchNorm uses and updates the statistics of the batch.

        Returns:
          Five feature maps (batch, h, w, channel) of `dtype` at strides 2, 4, 8, 16, 32 with 64, 256, 512, 1024, 2048
          channels; the first is the output of the stem before its pooling. With `num_classes`, the logits
          (batch, num_classes) float32 instead.
        """
        conv = partial(nn.Conv, use_bias=False, padding=0, kernel_init=nn.initializers.he_normal(), dtype=self.dtype)

        def norm(part: str) -> Callable:
            fixed = not train or part in self.fixed_norm
            shared = {"momentum": 0.9, "epsilon": self.epsilon, "dtype": self.dtype, "axis_name": self.axis_name}
            return partial(nn.BatchNorm, fixed, **shared)

        x = conv(64, (7, 7), 2, padding=3, name="conv_stem")(image.astype(self.dtype))
        maps = [nn.relu(norm("norm_stem")(name="norm_stem")(x))]
        x = nn.max_pool(maps[0], (3, 3), (2, 2), padding=((1, 1), (1, 1)))
        for stage, (width, blocks) in enumerate(zip(WIDTHS, BLOCKS, strict=True), 1):
            for index in range(blocks):
                stride = 2 if stage > 1 and index == 0 else 1
                name = f"stage{stage}_block{index}"
                x = Bottleneck(width, stride, index == 0, self.stride_on_first, conv, norm(name), name=name)(x)
            maps.append(x)
        if not self.num_classes:
            return maps
        pooled = x.astype(jnp.float32).mean(axis=(1, 2))
        return nn.Dense(self.num_classes, name="head")(pooled)
