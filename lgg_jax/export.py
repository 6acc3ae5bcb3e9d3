"""Export of a trained run to files that load without this package, its config and its checkpoint.

    python -m lgg_jax export --workdir=W --output=DIR

    DIR/model.stablehlo     the model with its weights, for JAX on cpu, cuda and tpu
    DIR/saved_model/        the same for TensorFlow and TensorFlow Serving; signature "serving_default"
    DIR/preprocess.json     inputs, outputs, preprocessing, post-processing, thresholds, versions and SHA-256

Loading model.stablehlo needs only jax, numpy and flatbuffers:

    exported = jax.export.deserialize(bytearray(pathlib.Path("DIR/model.stablehlo").read_bytes()))
    outputs = exported.call({"images": images, "middle": middle, "spread": spread})

`images` is (slice, side, side, channel) float32: raw intensities in the square around the head, for any number of
slices and any side. `middle` and `spread` are (channel,) float32: statistics of the whole volume.
outputs["probability"] is (slice, side, side) float32, in the same square.

The exported function normalises, resizes to the network's grids and back, adds neighbouring slices, and applies
test-time augmentation and the sigmoid. It does not compute the square, `middle` and `spread`, and it does not
post-process the mask: `graph.inputs` and `Postprocessing.mask` do, and preprocess.json describes how.
"""

import hashlib
from pathlib import Path

import jax
import ml_collections
import numpy as np
import tensorflow as tf
from absl import flags
from scipy.special import expit

from lgg_jax import segmenter, tasks
from lgg_jax import workdir as workdir_lib
from lgg_jax.data import dataset, tabular, volume
from lgg_jax.data import splits as splits_lib
from lgg_jax.data.cases import Case
from lgg_jax.errors import UserError
from lgg_jax.inference import graph
from lgg_jax.inference.predictor import case_probability
from lgg_jax.tasks import classification
from lgg_jax.tasks.preparation import restored

_PATIENTS = 2  # number of patients to compare
# Largest accepted difference of a probability between the artefacts and the restored model. Compilers of the same
# operations round differently.
_TOLERANCE = {"float32": 1e-4, "bfloat16": 2e-2}
_EVALUATE_TOLERANCE = 1e-2  # between the artefacts and `evaluate`, which stores slices in half precision

_INPUTS = {
    "images": "Raw intensities in the square, with the sequences listed in `channels`. All or some slices of one volume"
    " in anatomical order.",
    "middle": "Median of each channel over the brain in the whole volume.",
    "spread": "(third quartile - first quartile) / 1.349 of each channel over the brain in the whole volume; at least"
    " 0.001 * |middle| and at least 1e-6.",
    "clinical": "Clinical values and mask features, encoded as described in `clinical`. Each column has its value"
    " (number: (x - mean) / deviation; category: one-hot), followed by 1 if the value is missing and 0 otherwise.",
}
_OUTPUTS = {
    "probability": "Tumour probability of each pixel of the square.",
    "logit": "Logit of the label of each slice. The logit of a patient is the mean over the slices with tumour.",
}
_STEPS = [
    "head: The pixels in which FLAIR is above the minimum cross-entropy threshold (Li & Lee 1993), which is computed"
    " on every second row and column of the volume.",
    "square: The rows and columns in which the head, in some slice, is at least a quarter as wide as at its widest"
    " place (95th percentile), extended to a square with the same centre and then by 2 % of its side in each direction."
    " Without `crop`, the square is the whole image. With region `crop`, it is around the tumour. All slices have the"
    " same square. Outside the image, edge pixels are repeated.",
    "brain: The holes of the head are filled in each slice. The brain is the part of the head that is deeper than 8 %"
    " of the square root of the head area of the slice with the largest head area. If there is no such part, the brain"
    " is the head.",
    "mask: After the model, the mask is probability >= threshold at the place of the square, and zero elsewhere. If"
    " largest_component is true, one connected component of the volume is kept; pixels that share a corner are"
    " connected. Components that cover more than a third of the head in their slices are excluded, unless all do. Of"
    " the remaining ones, those with less than a fifth of the pixels of the largest are excluded. The component with"
    " the highest mean log-odds log(p / (1 - p)) is kept, with p clipped to 0.0001 to 0.9999. If fill_holes is true,"
    " the pixels that the mask encloses in a slice are added.",
]


def define_flags(flag_values: flags.FlagValues) -> None:
    """Define the flags of the verb `export`."""
    flags.DEFINE_string("workdir", None, "Export the run in this folder.", flag_values=flag_values)
    flags.DEFINE_string("output", None, "Write the files to this folder.", flag_values=flag_values)
    flags.mark_flags_as_required(["workdir", "output"], flag_values)


def main(flag_values: flags.FlagValues) -> int:
    """Run the verb `export`."""
    output = export(flag_values.workdir, flag_values.output)
    size = (output / "model.stablehlo").stat().st_size / 1e6
    print(f"written: {output}/model.stablehlo ({size:.1f} MB with the weights), saved_model/, preprocess.json")
    return 0


def export(workdir: str | Path, output: str | Path) -> Path:
    """Export the best weights of a run, load the files and compare them with the run; return the folder.

    Raises:
      UserError: the training is not complete, `data.region` is "masked", `output` cannot be written, or a file differs
        from the run.
    """
    workdir, output = Path(workdir), Path(output)
    config = workdir_lib.read_config(workdir)
    if config.data.get("region") == "masked":
        raise UserError(f"{workdir}: config.data.region=masked is not exported", "train with region crop or slice")
    # Checked before the checkpoints are read: a run without any is then reported as unfinished.
    workdir_lib.read_chosen(workdir, tasks.get(config.task).CHOSEN)
    run = segmenter.restore(workdir, config)
    encoder = clinical_encoder(run, workdir)
    finer = run.chosen.finer if "mask" in run.task.OUTPUTS else ()
    function = graph.inference_function(config, run.variables, run.chosen.flip_tta, finer)
    exported = graph.to_stablehlo(function, encoder.width if encoder else 0, len(config.data.channels))
    try:
        output.mkdir(parents=True, exist_ok=True)
        (output / "preprocess.json").unlink(missing_ok=True)  # It only exists if the comparison succeeded.
        (output / "model.stablehlo").write_bytes(exported.serialize())
        graph.save_tensorflow(exported, output / "saved_model")
    except OSError as error:
        raise UserError(f"cannot write to {output} ({error})", "free space or pass another --output") from error
    differences = compare(output, run, workdir, function)
    about = {"task": config.task, "target": config.data.get("target"), "step": run.step, "chosen": vars(run.chosen)}
    content = about | describe(exported, config, encoder) | _files(output) | {"differences": differences}
    workdir_lib.write_json(output / "preprocess.json", content)
    return output


def compare(output: Path, run: segmenter.Restored, workdir: Path, function: graph.Function) -> dict:
    """Return the largest differences of a probability between the exported files and the run.

    Args:
      output: the folder with the exported files.
      run: the restored run.
      workdir: the run directory.
      function: the exported function in JAX.

    Returns:
      {"model.stablehlo", "saved_model"}: differences to `function`. {"evaluate"}: the difference of model.stablehlo to
      what `evaluate` computes; only if the data of the validation patients is available.

    Raises:
      UserError: a difference is larger than rounding explains.
    """
    reference, loaded = jax.jit(function), graph.load(output / "model.stablehlo")
    served = tf.saved_model.load(str(output / "saved_model")).signatures["serving_default"]
    largest = {"model.stablehlo": 0.0, "saved_model": 0.0}
    for values, case in examples(run, workdir):
        expected, outputs = reference(values), dict(loaded(values))
        largest["model.stablehlo"] = max(largest["model.stablehlo"], _difference(outputs, expected))
        tensors = served(**{name: tf.constant(x) for name, x in values.items()})
        largest["saved_model"] = max(largest["saved_model"], _difference(tensors, expected))
        if case is not None:
            if "probability" in outputs:
                outputs["probability"] = volume.input_grid(np.asarray(outputs["probability"]), case.geometry)
            difference = _difference(outputs, evaluated(run, case))
            largest["evaluate"] = max(largest.get("evaluate", 0.0), difference)
    print("largest difference of a probability: " + ", ".join(f"{name} {value:.1e}" for name, value in largest.items()))
    limit = _TOLERANCE[run.config.model.dtype]
    limits = {"evaluate": max(_EVALUATE_TOLERANCE, limit)}
    # `not <=` instead of `>`, so that NaN is an error too.
    wrong = [name for name in largest if not largest[name] <= limits.get(name, limit)]
    if wrong:
        raise UserError(f"{output}: {', '.join(wrong)} differs from the restored model", "do not use these files")
    return largest


def examples(run: segmenter.Restored, workdir: Path) -> list[tuple[dict, Case | None]]:
    """Return (inputs, case) of validation patients, or random inputs and None if their data is not available."""
    config = run.config
    folders = [folder for folder in (config.data.dir, config.data.get("segmentation_workdir")) if folder]
    members = splits_lib.members(splits_lib.read_splits(workdir / "splits.json"), "validation")
    patients, pairs = dict(list(members.items())[:_PATIENTS]), []
    if patients and folders and all(Path(folder).is_dir() for folder in folders):
        prepare = run.task.preparation(config, workdir, segmenter.predicted_masks(config), None).prepare
        for case in dataset.load_cases(config, prepare, patients):
            values = graph.inputs(case.scan, case.geometry, config.data.channels)
            values["images"] = values["images"][np.isin(case.scan.slice_index, case.slice_index)]
            clinical = {"clinical": np.tile(case.clinical, (len(case.images), 1))} if len(case.clinical) else {}
            pairs.append((values | clinical, case))
    return pairs or [(_random(clinical_encoder(run, workdir), len(config.data.channels)), None)]


def _random(encoder: tabular.Encoder | None, channels: int) -> dict[str, np.ndarray]:
    print("the data of the validation patients is not available: comparing on random slices")
    rng = np.random.default_rng(0)
    middle, spread = [100, 110, 120, 130][:channels], [30, 40, 50, 60][:channels]
    values = {"images": rng.uniform(0, 255, (3, 100, 100, channels)), "middle": middle, "spread": spread}
    if encoder:
        values["clinical"] = rng.normal(size=(3, encoder.width))
    return {name: np.float32(x) for name, x in values.items()}


def evaluated(run: segmenter.Restored, case: Case) -> dict[str, np.ndarray]:
    """Return what `evaluate` scores: "probability" (slice, height, width) on the scan's grid and "logit" (row,)."""
    predict, outputs, chosen = run.predictor(), run.task.OUTPUTS, run.chosen
    if outputs == ("label",):
        return {"logit": classification.case_logits(predict, run.variables, case, chosen.flip_tta)}
    masks = run.task.mask_predictor(predict)
    result = {"probability": case_probability(masks, run.variables, case, chosen.flip_tta, chosen.finer)}
    if "label" in outputs:
        clinical = np.tile(case.clinical, (len(case.images), 1))
        result["logit"] = predict(run.variables, case.images, clinical)["label"]
    return result


def _difference(outputs: dict, expected: dict) -> float:
    """Return the largest absolute difference over all outputs. Logits are converted to probabilities first."""

    def probability(name: str, values) -> np.ndarray:
        values = np.asarray(values, np.float64)
        return expit(values) if name == "logit" else values

    return max(
        float(np.abs(probability(name, x) - probability(name, outputs[name])).max()) for name, x in expected.items()
    )


def describe(exported: jax.export.Exported, config: ml_collections.ConfigDict, encoder: tabular.Encoder | None) -> dict:
    """Return the entries of preprocess.json on inputs, outputs, preprocessing and post-processing."""
    data = config.data
    outputs = jax.tree.unflatten(exported.out_tree, exported.out_avals)
    return {
        "inputs": {name: _aval(x) | {"meaning": _INPUTS[name]} for name, x in graph.named_inputs(exported).items()},
        "outputs": {name: _aval(x) | {"meaning": _OUTPUTS[name]} for name, x in outputs.items()},
        "steps": _STEPS,
        "channels": [volume.CHANNELS[volume.SEQUENCES.index(name)] for name in data.channels],
        "size": data.size, "crop": data.crop, "region": data.get("region", "slice"), "context": data.context,
        "limits": [-5, 5], "clinical": encoder.to_dict() if encoder else None,
        "platforms": graph.PLATFORMS, "stablehlo": graph.STABLEHLO, "versions": workdir_lib.versions(),
    }  # fmt: skip


def _aval(aval) -> dict:
    return {"shape": [size if isinstance(size, int) else str(size) for size in aval.shape], "dtype": str(aval.dtype)}


def clinical_encoder(run: segmenter.Restored, workdir: Path) -> tabular.Encoder | None:
    """Return the encoder of the run's clinical values; None if the run uses none."""
    if not run.config.data.get("tabular"):
        return None
    return restored(run.config, workdir).encoder


def _files(output: Path) -> dict:
    paths = [output / "model.stablehlo", *sorted(path for path in output.glob("saved_model/**/*") if path.is_file())]
    return {"sha256": {str(path.relative_to(output)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}}
