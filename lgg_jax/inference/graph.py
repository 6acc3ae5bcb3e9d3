"""Inference of a run as one function of raw slices, exported as StableHLO and as a TensorFlow SavedModel.

    function = inference_function(config, variables, flip_tta=True, finer=(16, 32))
    exported = to_stablehlo(function)                                    # any number of slices, any side length
    save_tensorflow(exported, folder)
    outputs = function(inputs(scan, find_geometry(scan.image, size)))    # {"probability": (slice, side, side)}
"""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import jax.export  # jax itself does not import it
import jax.numpy as jnp
import ml_collections
import numpy as np
import tensorflow as tf
from jax.extend.mlir.dialects import stablehlo
from tensorflow.compiler.tf2xla.python import xla as tfxla

from lgg_jax import models
from lgg_jax.data import volume

PLATFORMS = ("cpu", "cuda", "tpu")
# The version of the StableHLO format to write. By default, JAX writes a version that is four weeks old, which the
# installed release of TensorFlow cannot read.
STABLEHLO = "1.9.0"
Function = Callable[[dict], dict]


def load(path: str | Path) -> Function:
    """Load the function in a model.stablehlo: {input name: array} → {output name: array}."""
    return jax.export.deserialize(bytearray(Path(path).read_bytes())).call


def inputs(
    scan: volume.Volume, geometry: volume.Geometry, names: Sequence[str] = volume.SEQUENCES[:3]
) -> dict[str, np.ndarray]:
    """Inputs of the exported function for one scan, without clinical values.

    `volume.input_grid(outputs["probability"], geometry)` maps the output back to (slice, height, width).

    Args:
      scan: the volume; its image is (slice, height, width, channel).
      geometry: the square around the head, from `volume.find_geometry`.
      names: the sequences of the run, `config.data.channels`.

    Returns:
      {"images": (slice, side, side, channel), "middle": (channel,), "spread": (channel,)}, float32: raw intensities in
      the square, and the median and the scaled interquartile range of each channel over the brain.
    """
    brain = volume.inside(volume.foreground(scan.image))
    image = scan.image[..., volume.channel_indices(scan.image, names)]
    statistics = [volume.centre_and_spread(channel, brain) for channel in np.moveaxis(image, -1, 0)]
    middle, spread = np.transpose(statistics)
    g = geometry
    rows = np.clip(np.arange(g.top, g.top + g.side), 0, g.height - 1)
    columns = np.clip(np.arange(g.left, g.left + g.side), 0, g.width - 1)
    images = image.take(rows, axis=1).take(columns, axis=2)
    return {"images": np.float32(images), "middle": np.float32(middle), "spread": np.float32(spread)}


def inference_function(
    config: ml_collections.ConfigDict, variables: dict, flip_tta: bool, finer: Sequence[int] = ()
) -> Function:
    """The inference of a run in operations that JAX can export, equivalent to that of evaluation and prediction.

    Args:
      config: the config of the run.
      variables: {"params", "batch_stats"} of the model.
      flip_tta: whether to average with the prediction for the mirrored slices (test-time augmentation).
      finer: multi-scale inference: pixels to add to `config.data.size` for each additional grid.

    Returns:
      A function of `inputs` and, if the model takes them, "clinical" (slice, value). It returns "probability" (slice,
      side, side) for models that segment and "logit" (slice,) for models that classify, both float32.
    """
    model, data = models.create_model(config.model), config.data
    outputs = models.outputs(config.model)

    def network(x: jax.Array, clinical: jax.Array) -> dict:
        logits = model.apply(variables, *([x, clinical] if "label" in outputs else [x]), train=False)
        return logits if len(outputs) > 1 else {outputs[0]: logits}

    def on_grid(values: dict, size: int) -> jax.Array:
        x = jnp.clip((values["images"] - values["middle"]) / values["spread"], -5, 5)
        x = resize(x, size)  # Not in half precision as in cases.Case: compilers would round differently.
        count = x.shape[0]
        places = (jnp.clip(jnp.arange(count) + k, 0, count - 1) for k in range(-data.context, data.context + 1))
        return jnp.concatenate([jnp.take(x, place, axis=0) for place in places], axis=-1)

    def label(x: jax.Array, clinical: jax.Array) -> jax.Array:
        logit = network(x, clinical)["label"]
        flips = flip_tta and outputs == ("label",)
        return (logit + network(x[:, :, ::-1], clinical)["label"]) / 2 if flips else logit

    def probability(x: jax.Array, clinical: jax.Array, side: int) -> jax.Array:
        found = jax.nn.sigmoid(network(x, clinical)["mask"])
        if flip_tta:
            flipped = jax.nn.sigmoid(network(x[:, :, ::-1], clinical)["mask"])
            found = (found + flipped[:, :, ::-1]) / 2
        return resize(found[..., None], side)[..., 0]

    def apply(values: dict) -> dict:
        count, side = values["images"].shape[:2]
        clinical = values.get("clinical", jnp.zeros((count, 0)))
        found = {}
        if "label" in outputs:
            found["logit"] = label(on_grid(values, data.size), clinical)
        if "mask" in outputs:
            grids = [probability(on_grid(values, data.size + more), clinical, side) for more in (0, *finer)]
            found["probability"] = sum(grids) / len(grids)
        return found

    return apply


def resize(images: jax.Array, size: int) -> jax.Array:
    """Resize images with Pillow's BILINEAR, which is a triangle filter.

    `jax.image.resize` also takes symbolic sizes, but rounds positions to float32: on white noise of unit variance it
    differs from Pillow by up to 1.3e-4, this function by less than 1e-6.

    Args:
      images: (n, side, side, channel) float32; `side` may be symbolic.
      size: the new side length; it may be symbolic.

    Returns:
      (n, size, size, channel) float32.
    """
    weights = _triangle(images.shape[1], size)
    return jnp.einsum("oh,nhwc,pw->nopc", weights, images, weights, precision=jax.lax.Precision.HIGHEST)


def _triangle(before: int, after: int) -> jax.Array:
    """Weights of the triangle filter, (after, before) float32, with rows of sum 1; the sizes may be symbolic.

    Output pixel o is at position (o + 1/2)·before/after - 1/2 of the input. Distances are in units of 1/(2·after)
    pixels. In these units they are integers, so that no rounding occurs.
    """
    out, into = jnp.arange(after)[:, None], jnp.arange(before)
    distance = jnp.abs((2 * out + 1) * before - (2 * into + 1) * after)
    weights = jnp.maximum(0, 1 - distance / (2 * jnp.maximum(jnp.asarray(before), jnp.asarray(after))))
    return weights / weights.sum(axis=1, keepdims=True)


def to_stablehlo(function: Function, clinical_width: int = 0, channels: int = 3) -> jax.export.Exported:
    """Export a function for any number of slices and any side length.

    Args:
      function: the result of `inference_function`.
      clinical_width: number of clinical values per slice; 0 if the model takes none.
      channels: number of channels of the images.

    Returns:
      The exported function for all PLATFORMS, in version STABLEHLO of the format.
    """
    count, side = jax.export.symbolic_shape("slice, side")
    shapes = {"images": (count, side, side, channels), "middle": (channels,), "spread": (channels,)}
    if clinical_width:
        shapes["clinical"] = (count, clinical_width)
    values = {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in shapes.items()}
    exported = jax.export.export(jax.jit(function), platforms=PLATFORMS)(values)
    module = stablehlo.serialize_portable_artifact_str(exported.mlir_module(), STABLEHLO)
    return dataclasses.replace(exported, mlir_module_serialized=module)


def save_tensorflow(exported: jax.export.Exported, folder: Path) -> None:
    """Save an exported function as a SavedModel; its signature takes the inputs by name and returns a dictionary."""

    def call(**values):
        # jax.experimental.jax2tf would serialise the module again, in a version that TensorFlow cannot read.
        flat = tfxla.call_module(
            [value for _, value in sorted(values.items())],  # JAX flattens a dictionary by its sorted keys.
            version=exported.calling_convention_version,
            module=exported.mlir_module_serialized,
            Tout=[aval.dtype for aval in exported.out_avals],
            Sout=[_known(aval) for aval in exported.out_avals],
            platforms=[name.upper() for name in exported.platforms],
        )
        return jax.tree.unflatten(exported.out_tree, flat)

    specs = {name: tf.TensorSpec(_known(aval), aval.dtype, name) for name, aval in named_inputs(exported).items()}
    concrete = tf.function(call, autograph=False).get_concrete_function(**specs)
    tf.saved_model.save(tf.Module(), str(folder), signatures=concrete)


def named_inputs(exported: jax.export.Exported) -> dict:
    """The inputs of an exported function: {name: abstract array with shape and dtype}."""
    (values,), _ = jax.tree.unflatten(exported.in_tree, exported.in_avals)
    return values


def _known(aval) -> tuple:
    """The shape of an abstract array for TensorFlow, with None for symbolic sizes."""
    return tuple(size if isinstance(size, int) else None for size in aval.shape)
