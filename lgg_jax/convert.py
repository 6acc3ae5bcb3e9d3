"""ImageNet weights of ResNet50 from Keras, torchvision or TF.js, made into one file for `config.model.pretrained`.

    python -m lgg_jax convert --source=keras --output=resnet50.safetensors       # Keras downloads them
    python -m lgg_jax convert --source=resnet50-0676ba61.pth --output=resnet50.safetensors

What the weights expect of the input, where their strides lie and BatchNorm's epsilon go into the file with them.
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
# Where keras.applications.ResNet50 has them from, and their MD5.
_KERAS_FOLDER = "https://storage.googleapis.com/tensorflow/keras-applications/resnet/"
_KERAS_FILE = "resnet50_weights_tf_dim_ordering_tf_kernels.h5"
_KERAS_MD5 = "2cb95161c43110f7111970584f804107"


def define_flags(flag_values: flags.FlagValues) -> None:
    def string(name: str, text: str, required: bool = False) -> None:
        flags.DEFINE_string(name, None, text, flag_values=flag_values, required=required)

    string("source", "A .h5, .safetensors or .pth file, a TF.js folder, or `keras` to download.", required=True)
    string("output", "The .safetensors file to write.", required=True)
    string("sha256", "Digest that the source must have (TF.js: of model.json and the shards, one after the other).")
    flags.DEFINE_bool("include_top", False, "Keep the layer of the 1000 ImageNet classes.", flag_values=flag_values)


def main(flag_values: flags.FlagValues) -> int:
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
    """The weights of `source`: a path, or "keras" to download them.

    Nothing of the file is read before its sha256 was found to be `digest`, if one is given. UserError for another
    digest, a broken file, and tensors that are not those of a ResNet50.
    """
    path = _download() if source == "keras" else find_source(source)
    found = sha256(path)
    if digest and found != digest.strip().lower():
        raise UserError(f"{path} has the sha256 {found}, not {digest}", "download it again, or correct --sha256")
    foreign = read_foreign(path)
    layout = recognise(foreign)
    variables = translate(foreign, layout, CLASSES if include_top else 0)
    epsilon, stride_on_first = epsilon_and_stride(foreign, layout)
    name = f"{path.resolve().parent.name}/" * (path.suffix == ".json") + path.name
    return Pretrained(variables, stride_on_first, epsilon, **layout.expects, source=name, sha256=found)


def _download() -> Path:
    """Keras's own file of weights, from its cache or the network."""
    os.environ.setdefault("KERAS_BACKEND", "jax")  # else it imports TensorFlow to fetch a file
    try:
        keras = importlib.import_module("keras")
    except ImportError as error:
        raise UserError("--source=keras needs keras, which is not installed", "install it, or pass a file") from error
    try:
        url = _KERAS_FOLDER + _KERAS_FILE
        return Path(keras.utils.get_file(_KERAS_FILE, url, cache_subdir="models", file_hash=_KERAS_MD5))
    except Exception as error:  # it raises no narrower one when the network fails
        raise UserError(f"Keras cannot download {_KERAS_FILE} ({error})", "pass a file as --source") from error
