"""Networks by name: the table `NETWORKS`, and the module that a config describes.

    model = create_model(config.model)
    network(config.model.name).norms            # ("batch", "group")
    outputs(config.model)                       # ("mask",)

To add a network:

1. Write a linen module with a class method `create(config, dtype, axis_name, fixed_norm)`, in a file of its own.
2. Add a row to `NETWORKS`. The checks of a config, the tasks and the export read the properties of a network there.
3. Add a config, configs/<name>.py. Its docstring states the command and the result.
4. Add a test, tests/models/test_<name>.py: the exact number of parameters and the shapes. tests/test_networks.py
   covers training, resume, evaluation, prediction and export for every row with the output "mask".
"""

import dataclasses
from collections.abc import Callable

import jax.numpy as jnp
import ml_collections
from flax import linen as nn

from lgg_jax.config import check_choice
from lgg_jax.errors import UserError
from lgg_jax.models.attention_unet import AttentionUNet
from lgg_jax.models.classifier import Classifier
from lgg_jax.models.linear import Linear
from lgg_jax.models.residual_unet import ResidualUNet
from lgg_jax.models.unet import UNet
from lgg_jax.models.unet_resnet import UNetResNet50

Create = Callable[[ml_collections.ConfigDict, jnp.dtype, str | None, tuple[str, ...]], nn.Module]


@dataclasses.dataclass(frozen=True)
class Network:
    """The properties of a network: one row of the table.

    Attributes:
      create: returns the module for `config.model`, the dtype of the computation, the mapped axis that BatchNorm
        averages over (None outside a mapped function), and the names of the modules whose BatchNorm statistics are
        fixed.
      outputs: the logits that the network returns: "mask" for each pixel, "label" for each slice. A network with
        several outputs returns a dictionary.
      grade_head: whether `config.model.grade_head` adds "label" to the outputs.
      norms: the allowed values of `config.model.norm`.
      backbone: whether the network has a module "backbone", a ResNet50 that can load `config.model.pretrained`.
      channels: the required number of sequences, None for any number.
      neighbours: whether the network accepts neighbouring slices as additional channels (`config.data.context`).
      images: whether the network uses the slice; if not, it uses `config.data.tabular` alone.
    """

    create: Create
    outputs: tuple[str, ...]
    grade_head: bool = False
    norms: tuple[str, ...] = ("batch",)
    backbone: bool = False
    channels: int | None = None
    neighbours: bool = True
    images: bool = True


_RESNET = {"backbone": True, "channels": 3, "neighbours": False}
NETWORKS = {
    "unet": Network(UNet.create, ("mask",), norms=("batch", "group")),
    "unet_resnet50": Network(UNetResNet50.create, ("mask",), grade_head=True, **_RESNET),
    "classifier": Network(Classifier.create, ("label",), **_RESNET),
    "linear": Network(Linear.create, ("label",), images=False),
    "attention_unet": Network(AttentionUNet.create, ("mask",), norms=("batch", "group")),
    "residual_unet": Network(ResidualUNet.create, ("mask",), norms=("batch", "group")),
}


def network(name: str) -> Network:
    """The row for `config.model.name`; raises UserError if the name is unknown."""
    check_choice("model.name", name, NETWORKS)
    return NETWORKS[name]


def outputs(config: ml_collections.ConfigDict) -> tuple[str, ...]:
    """The logits that the network of `config.model` returns: "mask", "label" or both."""
    row = network(config.name)
    return (*row.outputs, "label") if row.grade_head and config.grade_head else row.outputs


def with_outputs(wanted: tuple[str, ...]) -> str:
    """The networks with exactly the outputs `wanted`, as text for an error message: "'unet' or 'unet_resnet50'"."""
    plain = [repr(name) for name, row in NETWORKS.items() if row.outputs == wanted]
    with_head = [f"{name!r} with grade_head=True" for name, row in NETWORKS.items()
                 if row.grade_head and (*row.outputs, "label") == wanted]  # fmt: skip
    return " or ".join(plain + with_head)


def create_model(
    config: ml_collections.ConfigDict, axis_name: str | None = None, frozen: tuple[str, ...] = ()
) -> nn.Module:
    """Create the module that `config.name` names.

    Args:
      config: `config.model`.
      axis_name: the mapped axis that BatchNorm averages over, None outside a mapped function.
      frozen: modules, or parts of the backbone, that are not trained. Their BatchNorm statistics are fixed, as are
        those of `config.fixed_norm`.

    Raises:
      UserError: the name, the dtype or the normalisation is unknown, the network does not have the normalisation, or
        `frozen` or `config.fixed_norm` names a part of a module other than the backbone.
    """
    row, fixed = network(config.name), (*config.fixed_norm, *frozen)
    check_choice("model.dtype", config.dtype, ("float32", "bfloat16"))
    _check_parts(fixed)
    _check_norm(config, row)
    return row.create(config, jnp.dtype(config.dtype).type, axis_name, fixed)


def _check_parts(names: tuple[str, ...]) -> None:
    parts = [name for name in names if "/" in name]
    refused = [name for name in parts if not name.startswith("backbone/") or name.count("/") > 1]
    if refused:
        raise UserError(
            f"config.optimizer.frozen or config.model.fixed_norm names {refused}, which cannot be selected",
            "name whole modules such as encoder0, or parts of the backbone such as backbone/conv_stem",
        )


def _check_norm(config: ml_collections.ConfigDict, row: Network) -> None:
    check_choice("model.norm", config.norm, dict.fromkeys(norm for other in NETWORKS.values() for norm in other.norms))
    if config.norm not in row.norms:
        others = [name for name, other in NETWORKS.items() if config.norm in other.norms]
        raise UserError(
            f"config.model.norm={config.norm!r}: config.model.name={config.name!r} has no such normalisation",
            f"set it to {' or '.join(map(repr, row.norms))}, or use config.model.name={' or '.join(others)}",
        )
