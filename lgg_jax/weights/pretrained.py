"""Converted ImageNet weights: the file format, and the input that the weights expect.

    pretrained = read_pretrained("resnet50.safetensors")
    model = ResNet50(pretrained.stride_on_first, epsilon=pretrained.epsilon)
    maps = model.apply(pretrained.variables, from_zscore(images, pretrained), train=False)

`python -m lgg_jax convert` writes the file. Only safetensors is needed to read it.
"""

import dataclasses
import json
from pathlib import Path

import flax.traverse_util
import jax
import numpy as np
import safetensors
import safetensors.numpy

from lgg_jax import workdir
from lgg_jax.errors import UserError

FORMAT = "lgg_jax pretrained 1"
ARCHITECTURE = "resnet50"
# Mean and standard deviation of the training images of ImageNet, RGB between 0 and 1.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclasses.dataclass(frozen=True, eq=False)
class Pretrained:
    """Weights of a ResNet50 and the input that they expect.

    Attributes:
      variables: {"params", "batch_stats"} of `ResNet50`, float32; with `head` if the 1000 classes were converted.
      stride_on_first, epsilon: fields of `ResNet50`.
      channel_order: "RGB" or "BGR".
      scale: value of white, 1 or 255, before normalisation with `mean` and `std`.
      mean, std: mean and standard deviation of the channels, in `channel_order`.
      source, sha256: name and digest of the file from which the weights were converted.
    """

    variables: dict = dataclasses.field(repr=False)
    stride_on_first: bool
    epsilon: float
    channel_order: str
    scale: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    source: str
    sha256: str

    @property
    def include_top(self) -> bool:
        return "head" in self.variables["params"]


def from_zscore(images: jax.Array | np.ndarray, pretrained: Pretrained) -> jax.Array | np.ndarray:
    """Scale z-scored images to the input that the weights expect.

    z is interpreted as a photo x = z · IMAGENET_STD · scale + mean, whose channels have the mean and the standard
    deviation of ImageNet. The weights expect (x - mean) / std, which is z · IMAGENET_STD · scale / std, in their
    channel order. For the weights of torchvision this is z itself; for those of Keras it is about 57 z, their usual
    range.

    Args:
      images: (…, 3) float32 with mean 0 and standard deviation 1.
      pretrained: the weights.

    Returns:
      (…, 3) float32.
    """
    spread = _reorder(np.float32(IMAGENET_STD), pretrained) * np.float32(pretrained.scale)
    return _reorder(images, pretrained) * (spread / np.float32(pretrained.std))


def _reorder(channels, pretrained: Pretrained):
    return channels[..., ::-1] if pretrained.channel_order == "BGR" else channels


def write_pretrained(path: Path, pretrained: Pretrained) -> None:
    """Write one safetensors file, atomically.

    Raises:
      OSError: the file cannot be written.
    """
    tensors = flax.traverse_util.flatten_dict(pretrained.variables, sep="/")
    tensors = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    about = {f.name: getattr(pretrained, f.name) for f in dataclasses.fields(Pretrained) if f.name != "variables"}
    about |= {"format": FORMAT, "architecture": ARCHITECTURE, "include_top": pretrained.include_top}
    content = safetensors.numpy.save(tensors, {key: json.dumps(value) for key, value in about.items()})
    workdir.write_atomically(path, content)


def read_pretrained(path: str | Path) -> Pretrained:
    """Read a file that `python -m lgg_jax convert` wrote.

    Raises:
      UserError: the file is missing, truncated, or not a file of converted weights.
    """
    remedy = "set config.model.pretrained to a file that python -m lgg_jax convert wrote"
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            about = {key: json.loads(value) for key, value in (file.metadata() or {}).items()}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (OSError, safetensors.SafetensorError) as error:
        raise UserError(f"cannot read {path} ({error})", remedy) from error
    except ValueError:
        about = {}
    if about.get("format") != FORMAT:
        raise UserError(f"{path} is not a file of converted weights", remedy)
    if about["architecture"] != ARCHITECTURE:
        raise UserError(f"{path} holds a {about['architecture']}, not a {ARCHITECTURE}", remedy)
    about = {f.name: about[f.name] for f in dataclasses.fields(Pretrained) if f.name != "variables"}
    about |= {"mean": tuple(about["mean"]), "std": tuple(about["std"])}
    return Pretrained(variables=flax.traverse_util.unflatten_dict(tensors, sep="/"), **about)
