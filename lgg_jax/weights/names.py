"""Names of a ResNet50's tensors in other libraries, and their conversion to variables of `ResNet50`.

    layout = recognise(foreign)
    layout.name                                   # "torchvision"
    variables = translate(foreign, layout, num_classes=0)
"""

import re
from collections.abc import Callable, Iterable
from functools import cache, partial
from typing import NamedTuple

import flax.traverse_util
import jax
import numpy as np

from lgg_jax.errors import UserError
from lgg_jax.models.resnet import ResNet50
from lgg_jax.weights.files import ForeignWeights
from lgg_jax.weights.pretrained import IMAGENET_MEAN, IMAGENET_STD

_LISTED = 10  # names of each kind in an error message
_CAFFE = {"channel_order": "BGR", "scale": 255.0, "mean": (103.939, 116.779, 123.68), "std": (1.0, 1.0, 1.0)}
_TORCH = {"channel_order": "RGB", "scale": 1.0, "mean": IMAGENET_MEAN, "std": IMAGENET_STD}
_KERAS_LEAVES = {"kernel": "/kernel", "scale": "/gamma", "bias": "/beta"}
_KERAS_LEAVES |= {"mean": "/moving_mean", "var": "/moving_variance"}
_TORCH_LEAVES = {"kernel": ".weight", "scale": ".weight", "bias": ".bias"}
_TORCH_LEAVES |= {"mean": ".running_mean", "var": ".running_var"}


def _keras_layer(stage: int, block: int, kind: str, part: str) -> str:
    kind = {"conv": "conv", "norm": "bn"}[kind]
    return f"conv1_{kind}" if part == "stem" else f"conv{stage + 1}_block{block + 1}_{part.replace('proj', '0')}_{kind}"


def _old_keras_layer(stage: int, block: int, kind: str, part: str) -> str:
    if part == "stem":
        return {"conv": "conv1", "norm": "bn_conv1"}[kind]
    branch = {"1": "2a", "2": "2b", "3": "2c", "proj": "1"}[part]
    return {"conv": "res", "norm": "bn"}[kind] + f"{stage + 1}{'abcdef'[block]}_branch{branch}"


def _torchvision_layer(stage: int, block: int, kind: str, part: str) -> str:
    if part == "proj":
        return f"layer{stage}.{block}.downsample." + {"conv": "0", "norm": "1"}[kind]
    prefix = "" if part == "stem" else f"layer{stage}.{block}."
    return prefix + {"conv": "conv", "norm": "bn"}[kind] + part.replace("stem", "1")


class Layout(NamedTuple):
    """The names of the tensors in a library, and the properties of its networks.

    Attributes:
      name: name of the layout for messages.
      library: "keras" or "torch", as in `ForeignWeights`.
      layer: (stage, block, "conv" or "norm", "stem", "1", "2", "3" or "proj") → name of the layer.
      head: name of the layer for the 1000 classes.
      leaves: name of an array in linen → suffix of the tensor's name.
      epsilon, stride_on_first: fields of `ResNet50`, used if the file does not describe its layers.
      expects: the fields of `Pretrained` that describe the input.
    """

    name: str
    library: str
    layer: Callable[[int, int, str, str], str]
    head: str
    leaves: dict[str, str]
    epsilon: float
    stride_on_first: bool
    expects: dict


LAYOUTS = (
    Layout("Keras", "keras", _keras_layer, "predictions", _KERAS_LEAVES, 1.001e-5, True, _CAFFE),
    Layout("older Keras", "keras", _old_keras_layer, "fc1000", _KERAS_LEAVES, 1e-3, True, _CAFFE),
    Layout("torchvision", "torch", _torchvision_layer, "fc", _TORCH_LEAVES, 1e-5, False, _TORCH),
)


def recognise(foreign: ForeignWeights) -> Layout:
    """The layout of the file's library that has most tensor names in common with the file."""
    candidates = [layout for layout in LAYOUTS if layout.library == foreign.library]
    return max(candidates, key=lambda layout: len(tensors_of(layout, 0).keys() & foreign.tensors.keys()))


def tensors_of(layout: Layout, num_classes: int) -> dict[str, tuple[tuple[str, ...], tuple[int, ...]]]:
    """{name of the tensor in the library: (path in the variables of `ResNet50`, shape)}."""
    return {_name(layout, path): (path, shape) for path, shape in _shapes(num_classes).items()}


@cache
def _shapes(num_classes: int) -> dict[tuple[str, ...], tuple[int, ...]]:
    init = partial(ResNet50(True, num_classes).init, train=False)
    variables = jax.eval_shape(init, jax.random.key(0), jax.ShapeDtypeStruct((1, 32, 32, 3), np.float32))
    return {path: leaf.shape for path, leaf in flax.traverse_util.flatten_dict(variables).items()}


def _name(layout: Layout, path: tuple[str, ...]) -> str:
    _, *block, module, leaf = path
    if module == "head":
        return layout.head + {"kernel": layout.leaves["kernel"], "bias": layout.leaves["kernel"][0] + "bias"}[leaf]
    stage, index = map(int, re.findall(r"\d+", block[0])) if block else (0, 0)
    return layout.layer(stage, index, *re.fullmatch(r"(conv|norm)_?(\w+)", module).groups()) + layout.leaves[leaf]


def translate(foreign: ForeignWeights, layout: Layout, num_classes: int) -> dict:
    """Convert tensors to the variables of `ResNet50`.

    A bias b before a BatchNorm is subtracted from its running mean, because conv + b - mean = conv - (mean - b).

    Args:
      foreign: the content of the weight file. Without `num_classes`, its tensors for the classes are ignored.
      layout: the layout of the names.
      num_classes: number of classes of `ResNet50`; 0 for feature maps.

    Returns:
      {"params", "batch_stats"}, float32.

    Raises:
      UserError: tensors are missing, additional, not finite, or of another shape. The message lists them.
    """
    wanted = tensors_of(layout, num_classes)
    biases = _biases(layout, wanted, foreign)
    _check(foreign, layout, {name: shape for name, (_, shape) in wanted.items()} | biases)
    flat = {path: foreign.tensors[name] for name, (path, _) in wanted.items()}
    for name in biases:
        _, *block, conv, _ = wanted[name.removesuffix("bias") + "kernel"][0]
        mean = ("batch_stats", *block, conv.replace("conv", "norm"), "mean")
        flat[mean] = flat[mean] - foreign.tensors[name]
    return flax.traverse_util.unflatten_dict(flat)


def _biases(layout: Layout, wanted: dict, foreign: ForeignWeights) -> dict[str, tuple[int]]:
    """{name: shape} of the biases of the convolutions; the layouts of Keras have all of them or none."""
    if layout.library != "keras":
        return {}
    biases = {
        name.removesuffix("kernel") + "bias": shape[-1:]
        for name, (path, shape) in wanted.items()
        if path[-1] == "kernel" and path[-2] != "head"
    }
    return biases if biases.keys() & foreign.tensors.keys() else {}


def _check(foreign: ForeignWeights, layout: Layout, shapes: dict[str, tuple[int, ...]]) -> None:
    tensors = foreign.tensors
    present = {name for name in tensors if name in shapes or not re.match(layout.head + "[./]", name)}
    problems = {
        "missing": sorted(shapes.keys() - present),
        "extra": sorted(present - shapes.keys()),
        "with another shape": [
            f"{name} {tensors[name].shape} instead of {shape}"
            for name, shape in shapes.items()
            if name in present and tensors[name].shape != shape
        ],
        "not finite": [name for name in sorted(present & shapes.keys()) if not np.isfinite(tensors[name]).all()],
    }
    if any(problems.values()):
        listing = "; ".join(f"{len(names)} {what}: {_listing(names)}" for what, names in problems.items() if names)
        raise UserError(
            f"{foreign.path} is not a ResNet50 in the layout of {layout.name}: {listing}",
            "pass the weights of a ResNet50 (with 1000 classes for --include_top)",
        )


def _listing(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:_LISTED]) + f" and {len(names) - _LISTED} more" * (len(names) > _LISTED)


def epsilon_and_stride(foreign: ForeignWeights, layout: Layout) -> tuple[float, bool]:
    """`epsilon` and `stride_on_first` of `ResNet50`, from the file if it describes its layers, else from the layout.

    Raises:
      UserError: the BatchNorm layers have different values of epsilon.
    """
    epsilons = {config["epsilon"] for config in foreign.layers.values() if "epsilon" in config}
    if len(epsilons) > 1:
        raise UserError(f"{foreign.path} has BatchNorms with epsilon {sorted(epsilons)}", "pass weights with one value")
    first = foreign.layers.get(layout.layer(2, 0, "conv", "1"))
    stride_on_first = layout.stride_on_first if first is None else tuple(first["strides"]) == (2, 2)
    return epsilons.pop() if epsilons else layout.epsilon, stride_on_first
