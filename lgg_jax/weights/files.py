"""Readers of weight files from Keras, torchvision and TF.js, for any architecture.

    source = read_foreign(Path("resnet50_weights_tf_dim_ordering_tf_kernels.h5"))
    source.tensors["conv1_conv/kernel"]     # (7, 7, 3, 64) float32

Kernels are returned in the layout of linen: (height, width, in, out) and (in, out). TensorFlow is not needed, and torch
only for `.pth`.
"""

import hashlib
import importlib
import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
import safetensors
import safetensors.numpy

from lgg_jax.errors import UserError

_MAX_BYTES = 2**30  # ten times a ResNet50; a small compressed file may expand to more than fits into memory
_REMEDY = "download it again"


class ForeignWeights(NamedTuple):
    """The content of a weight file.

    Attributes:
      path: path of the file.
      library: "keras" (names such as `conv1/kernel`) or "torch" (`conv1.weight`).
      tensors: float32 arrays by name.
      layers: configs of the layers by name; empty if the file does not describe the network.
    """

    path: Path
    library: str
    tensors: dict[str, np.ndarray]
    layers: dict[str, dict]


def read_foreign(path: Path) -> ForeignWeights:
    """Read a `.h5` of Keras, a `.safetensors` or `.pth` of torchvision, or a `model.json` of TF.js.

    Raises:
      UserError: the file is damaged, holds more than a gigabyte (`.h5`), or has a content that is not supported.
    """
    try:
        return READERS[path.suffix](path)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, safetensors.SafetensorError) as error:
        raise UserError(f"cannot read {path} ({_one_line(error)})", _REMEDY) from error


def find_source(source: str) -> Path:
    """The weight file at `source`: the file itself, or the `model.json` in a folder.

    Raises:
      UserError: there is no such file, or its suffix is not supported.
    """
    path = Path(source)
    path = path / "model.json" if path.is_dir() else path
    if not path.is_file():
        raise UserError(f"no such file: {path} (--source)", "pass a weight file, a TF.js folder, or keras")
    if path.suffix not in READERS:
        raise UserError(f"{path} has a suffix that is not supported (--source)", f"pass one of {', '.join(READERS)}")
    return path


def sha256(path: Path) -> str:
    """The hexadecimal digest of a file; for a TF.js model, of the concatenation of `model.json` and its shards.

    Raises:
      UserError: a file cannot be read.
    """
    digest = hashlib.sha256()
    try:
        for part in [path, *_shards(path, _manifest(path)[0])] if path.suffix == ".json" else [path]:
            digest.update(part.read_bytes())
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"cannot read {path} ({_one_line(error)})", _REMEDY) from error
    return digest.hexdigest()


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def _read_h5(path: Path) -> ForeignWeights:
    """Read any of Keras's three layouts: weights alone, a whole model, or `.weights.h5` of Keras 3."""
    with h5py.File(path) as file:
        config = file.attrs.get("model_config")
        groups = dict(_keras3_layers(file["layers"]) if "layers" in file else _layers(file.get("model_weights", file)))
        if sum(dataset.nbytes for datasets in groups.values() for dataset in datasets) > _MAX_BYTES:
            raise UserError(f"{path} holds more than a gigabyte", "pass the weights of a ResNet50")
        tensors = {}
        for layer, datasets in groups.items():
            tensors |= _named(layer, [np.asarray(dataset, np.float32) for dataset in datasets])
    return ForeignWeights(path, "keras", tensors, _layer_configs(json.loads(config)) if config else {})


def _layers(root: h5py.Group) -> Iterator[tuple[str, list[h5py.Dataset]]]:
    for layer, group in root.items():
        names = group.attrs.get("weight_names", ())
        yield layer, [group[name.decode() if isinstance(name, bytes) else name] for name in names]


def _keras3_layers(root: h5py.Group) -> Iterator[tuple[str, list[h5py.Dataset]]]:
    """Layers of a `.weights.h5`, whose groups are named by class and number; the layer's name is an attribute."""
    for group in root.values():
        values = group.get("vars", {})
        if len(values):
            yield values.attrs["name"], [values[key] for key in sorted(values, key=int)]


def _named(layer: str, arrays: list[np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays of a layer by name.

    The names follow from the order, as when Keras loads them: those in the file differ between versions of Keras.
    """
    norm = ("gamma", "beta", "moving_mean", "moving_variance")
    names = norm if arrays and arrays[0].ndim == 1 else ("kernel", "bias")
    names += tuple(map(str, range(len(names), len(arrays))))
    return {f"{layer}/{name}": array for name, array in zip(names, arrays, strict=False)}


def _layer_configs(model: dict) -> dict[str, dict]:
    return {layer["config"]["name"]: layer["config"] for layer in model["config"]["layers"]}


def _read_tfjs(path: Path) -> ForeignWeights:
    groups, topology = _manifest(path)
    tensors = {}
    for group in groups:
        for weight in group["weights"]:
            if weight["dtype"] != "float32" or "quantization" in weight:
                raise UserError(f"{path}: {weight['name']} is not in float32", "convert the unquantised model")
        data = np.concatenate([np.fromfile(shard, np.uint8) for shard in _shards(path, [group])])
        sizes = [int(np.prod(weight["shape"])) for weight in group["weights"]]
        if data.size != 4 * sum(sizes):
            raise UserError(_wrong_length(_shards(path, [group]), 4 * sum(sizes)), _REMEDY)
        parts = np.split(data.view("<f4"), np.cumsum(sizes)[:-1])
        tensors |= {w["name"]: part.reshape(w["shape"]) for w, part in zip(group["weights"], parts, strict=True)}
    return ForeignWeights(path, "keras", tensors, _layer_configs(topology))


def _manifest(path: Path) -> tuple[list[dict], dict]:
    model = json.loads(path.read_text())
    if model.get("format") == "graph-model":
        raise UserError(f"{path} is a TF.js graph model", "pass a layers model, whose weights have names")
    return model["weightsManifest"], model["modelTopology"]["model_config"]


def _shards(path: Path, groups: list[dict]) -> list[Path]:
    return [path.parent / name for group in groups for name in group["paths"]]


def _wrong_length(shards: list[Path], needed: int) -> str:
    """The error message for shards with a wrong total length.

    All shards except the last have the same length, so a damaged one can be named.
    """
    sizes = [shard.stat().st_size for shard in shards]
    damaged = [shard.name for shard, size in zip(shards[:-1], sizes[:-1], strict=True) if size != max(sizes)]
    names = ", ".join(damaged or [shards[-1].name])
    return f"{shards[0].parent}: the shards have {sum(sizes):,} bytes, but the weights need {needed:,} (see {names})"


def _read_safetensors(path: Path) -> ForeignWeights:
    return ForeignWeights(path, "torch", _from_torch(safetensors.numpy.load_file(path)), {})


def _read_pth(path: Path) -> ForeignWeights:
    try:
        torch = importlib.import_module("torch")
    except ImportError as error:
        raise UserError(f"{path} needs torch, which is not installed", "pass a .safetensors, or install it") from error
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise UserError(f"cannot read {path} as weights only ({_one_line(error)})", _REMEDY) from error
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise UserError(f"{path} holds more than tensors", "save only the state_dict() of the model")
    arrays = {name: tensor.float().numpy() for name, tensor in state.items()}
    return ForeignWeights(path, "torch", _from_torch(arrays), {})


def _from_torch(state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """(out, in, height, width) → (height, width, in, out) and (out, in) → (in, out); batch counters are dropped."""
    order = {4: (2, 3, 1, 0), 2: (1, 0)}
    return {
        name: tensor.astype(np.float32).transpose(order.get(tensor.ndim))
        for name, tensor in state.items()
        if not name.endswith("num_batches_tracked")
    }


READERS = {".h5": _read_h5, ".safetensors": _read_safetensors, ".pth": _read_pth, ".json": _read_tfjs}
