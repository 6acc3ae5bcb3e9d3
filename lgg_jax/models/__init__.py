"""The table of networks: what each is called, how a config becomes one, and what it can take.

    model = create_model(config.model)
    network(config.model.name).norms            # ("batch", "group")
    outputs(config.model)                       # ("mask",)

To add a network:

1. Write its module in a file of its own, with `create(config, dtype, axis_name, fixed_norm)`.
2. Add its row to `NETWORKS`. The config, the tasks, the export and the segmenter ask the row.
3. Add a config, configs/<name>.py. Its docstring states the command and the result.
4. Add a test, tests/models/test_<name>.py: the exact number of parameters and the shapes. The tests of
   tests/test_networks.py run every row through training, resume, evaluation, prediction and export.
"""

import dataclasses
from collections.abc import Callable

import jax.numpy as jnp
import ml_collections
from flax import linen as nn

from lgg_jax.errors import UserError
from lgg_jax.models import attention_unet, classifier, linear, residual_unet, unet, unet_resnet

Create = Callable[[ml_collections.ConfigDict, jnp.dtype, str | None, tuple[str, ...]], nn.Module]


@dataclasses.dataclass(frozen=True)
class Network:
    """One row of the table.

    Attributes:
      create: (`config.model`, dtype of the computation, axis that BatchNorm averages over, modules whose BatchNorm
        keeps its statistics) → the module.
      outputs: the logits that it returns, "mask" for each pixel or "label" for each slice; a network with several
        returns a dictionary.
      grade_head: whether `config.model.grade_head` adds "label" to the outputs.
      norms: the values of `config.model.norm` that it has.
      backbone: whether it has a module "backbone", a ResNet50 whose weights `config.model.pretrained` names.
      channels: the number of sequences that it takes, None for any.
      neighbours: whether it takes neighbouring slices as further channels (`config.data.context`).
      images: whether it looks at the slice, and not at `config.data.tabular` alone.
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
    "unet": Network(unet.create, ("mask",), norms=("batch", "group")),
    "unet_resnet50": Network(unet_resnet.create, ("mask",), grade_head=True, **_RESNET),
    "classifier": Network(classifier.create, ("label",), **_RESNET),
    "linear": Network(linear.create, ("label",), images=False),
    "attention_unet": Network(attention_unet.create, ("mask",), norms=("batch", "group")),
    "residual_unet": Network(residual_unet.create, ("mask",), norms=("batch", "group")),
}


def network(name: str) -> Network:
    """The row of `config.model.name`; UserError where there is none."""
    if name not in NETWORKS:
        raise UserError(f"config.model.name={name!r} is not known", f"use one of {', '.join(NETWORKS)}")
    return NETWORKS[name]


def outputs(config: ml_collections.ConfigDict) -> tuple[str, ...]:
    """The logits that the network of `config.model` returns: "mask", "label" or both."""
    row = network(config.name)
    return (*row.outputs, "label") if row.grade_head and config.grade_head else row.outputs


def with_outputs(wanted: tuple[str, ...]) -> str:
    """How a config asks for these outputs, for the remedy of an error: "'unet' or 'unet_resnet50'"."""
    plain = [repr(name) for name, row in NETWORKS.items() if row.outputs == wanted]
    headed = [f"{name!r} with grade_head=True" for name, row in NETWORKS.items()
              if row.grade_head and (*row.outputs, "label") == wanted]  # fmt: skip
    return " or ".join(plain + headed)


def create_model(
    config: ml_collections.ConfigDict, axis_name: str | None = None, frozen: tuple[str, ...] = ()
) -> nn.Module:
    """The module that `config.name` names.

    Args:
      config: `config.model`.
      axis_name: the mapped axis that BatchNorm averages over, None outside of one.
      frozen: modules and parts of the backbone that are not trained. Their BatchNorm keeps its statistics.

    Raises:
      UserError: the name, the dtype, the normalisation, or a name in `frozen` or `config.fixed_norm` is not known.
    """
    row, fixed = network(config.name), (*config.fixed_norm, *frozen)
    if config.dtype not in ("float32", "bfloat16"):
        raise UserError(f"config.model.dtype={config.dtype!r} is not known", "use 'float32' or 'bfloat16'")
    _check_parts(fixed)
    _check_norm(config, row)
    return row.create(config, jnp.dtype(config.dtype).type, axis_name, fixed)


def _check_parts(names: tuple[str, ...]) -> None:
    parts = [name for name in names if "/" in name]
    deep = [name for name in parts if not name.startswith("backbone/") or name.count("/") > 1]
    if deep:
        remedy = "name whole modules, and of parts only those of the backbone, such as backbone/conv_stem"
        raise UserError(f"config.optimizer.frozen or config.model.fixed_norm names {deep}", remedy)


def _check_norm(config: ml_collections.ConfigDict, row: Network) -> None:
    known = list(dict.fromkeys(norm for each in NETWORKS.values() for norm in each.norms))
    if config.norm not in known:
        raise UserError(f"config.model.norm={config.norm!r} is not known", f"use one of {', '.join(known)}")
    if config.norm not in row.norms:
        having = [name for name, each in NETWORKS.items() if config.norm in each.norms]
        raise UserError(
            f"config.model.norm={config.norm!r}: config.model.name={config.name!r} has no other than"
            f" {' or '.join(row.norms)}",
            f"set it to {row.norms[0]!r}, or use config.model.name={' or '.join(having)}",
        )
