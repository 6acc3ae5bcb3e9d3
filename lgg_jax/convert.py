"""Conversion of ImageNet weights of ResNet50 from Keras, torchvision or TF.js to one file for Flax.

    python -m lgg_jax convert --source=keras --output=resnet50.safetensors       # downloaded by Keras
    python -m lgg_jax convert --source=resnet50-0676ba61.pth --output=resnet50.safetensors

Pass the file as `config.model.pretrained`. Besides the weights, it stores the input scaling and channel order that
they expect, the position of the strides, and the epsilon of BatchNorm.
"""

import importlib
import os
from pathlib import Path

import jax
from absl import flags

from lgg_jax.errors import UserError
from lgg_jax.weights.files import find_source, read_foreign, sha256
from lgg_jax.weights.names import epsilon_and_stride, recognise, translate
from lgg_jax.weights.pretrained import Pretrained, write_pretrained

CLASSES = 1000
# The file that keras.applications.ResNet50 downloads, and its MD5.
_KERAS_FOLDER = "https://storage.googleapis.com/tensorflow/keras-applications/resnet/"
_KERAS_FILE = "resnet50_weights_tf_dim_ordering_tf_kernels.h5"
_KERAS_MD5 = "2cb95161c43110f7111970584f804107"


def define_flags(flag_values: flags.FlagValues) -> None:
    """Define the flags of the verb `convert`."""

    def string(name: str, text: str, required: bool = False) -> None:
        flags.DEFINE_string(name, None, text, flag_values=flag_values, required=required)

    text = "Convert this .h5, .safetensors or .pth file or TF.js folder; `keras` downloads the weights of Keras."
    string("source", text, required=True)
    string("output", "Write the weights to this .safetensors file.", required=True)
    text = "Require that the source has this SHA-256 (TF.js: of model.json and the shards, concatenated)."
    string("sha256", text)
    text = "Keep the classification layer of the 1000 ImageNet classes."
    flags.DEFINE_bool("include_top", False, text, flag_values=flag_values)


def main(flag_values: flags.FlagValues) -> int:
    """Run the verb `convert`."""
    output = Path(flag_values.output)
    if output.is_dir():
        raise UserError(f"{output} is a folder (--output)", "pass the file to write")
    pretrained = convert(flag_values.source, flag_values.sha256, flag_values.include_top)
    try:
        write_pretrained(output, pretrained)
    except OSError as error:
        raise UserError(f"cannot write {output} ({error})", "pass another --output or free space") from error
    print(f"{output}: {sum(leaf.size for leaf in jax.tree.leaves(pretrained.variables['params'])):,} parameters")
    print(pretrained)
    return 0


def convert(source: str, digest: str | None = None, include_top: bool = False) -> Pretrained:
    """Read the weights of a ResNet50 and convert them to Flax.

    Args:
      source: a path, or "keras" to download the weights.
      digest: the SHA-256 that the source must have. It is compared before the content is parsed.
      include_top: whether to keep the classification layer.

    Raises:
      UserError: the source has another digest, is damaged, or does not have the tensors of a ResNet50.
    """
    path = _download() if source == "keras" else find_source(source)
    actual = sha256(path)
    if digest and actual != digest.strip().lower():
        raise UserError(f"{path} has the sha256 {actual}, not {digest}", "download it again, or correct --sha256")
    foreign = read_foreign(path)
    layout = recognise(foreign)
    variables = translate(foreign, layout, CLASSES if include_top else 0)
    epsilon, stride_on_first = epsilon_and_stride(foreign, layout)
    name = f"{path.resolve().parent.name}/" * (path.suffix == ".json") + path.name
    return Pretrained(variables, stride_on_first, epsilon, **layout.expects, source=name, sha256=actual)


def _download() -> Path:
    """Return the path of Keras's weights file, from Keras's cache or downloaded."""
    os.environ.setdefault("KERAS_BACKEND", "jax")  # With its default backend, Keras would import TensorFlow.
    try:
        keras = importlib.import_module("keras")
    except ImportError as error:
        raise UserError("--source=keras needs keras, which is not installed", "install it, or pass a file") from error
    try:
        url = _KERAS_FOLDER + _KERAS_FILE
        return Path(keras.utils.get_file(_KERAS_FILE, url, cache_subdir="models", file_hash=_KERAS_MD5))
    except Exception as error:  # Keras raises a plain Exception if the network fails.
        raise UserError(f"Keras cannot download {_KERAS_FILE} ({error})", "pass a file as --source") from error
