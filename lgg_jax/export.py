"""A finished run as files that other programs load, without this package, its config or a checkpoint.

    python -m lgg_jax export --workdir=W --output=DIR

    DIR/model.stablehlo     for JAX on cpu, cuda and tpu, the weights in it
    DIR/saved_model/        the same for TensorFlow and its Serving; signature "serving_default"
    DIR/preprocess.json     every input and output, how a scan becomes the inputs, thresholds, versions, sha256

Loading takes jax, numpy and flatbuffers alone (`graph.load` is these two lines):

    exported = jax.export.deserialize(bytearray(pathlib.Path("DIR/model.stablehlo").read_bytes()))
    outputs = exported.call({"images": images, "middle": middle, "spread": spread})

`images` is (slice, side, side, channel) float32: raw intensities in the square around the head, any number of slices,
any side. In the graph: normalising by the volume's `middle` and `spread` (channel,), resizing to the network's grids
and back, neighbouring slices, flips, sigmoid; so "probability" is (slice, side, side) on the scan's own pixels. Not in
it: finding the head and its statistics, image processing of a whole volume (`graph.inputs` here; in words in
preprocess.json), and the clean-up of a mask.
"""

import hashlib
from pathlib import Path

import jax
import ml_collections
import numpy as np
import tensorflow as tf
from absl import flags
from scipy.special import expit

from lgg_jax import segmenter
from lgg_jax import workdir as workdir_lib
from lgg_jax.data import dataset, tabular, volume
from lgg_jax.data import splits as splits_lib
from lgg_jax.data.cases import Case
from lgg_jax.errors import UserError
from lgg_jax.inference import graph
from lgg_jax.inference.predictor import Predictor, case_probability
from lgg_jax.tasks import classification
from lgg_jax.tasks.preparation import restored

_PATIENTS = 2  # that are compared
_TOLERANCE = {"float32": 1e-4, "bfloat16": 2e-2}  # of a probability, between compilers of the same operations
_LIKE_EVALUATE = 1e-2  # to `evaluate`, which keeps its slices in half precision

_INPUTS = {
    "images": "raw intensities in the square of the sequences in `channels` below, slices of one volume in anatomical"
    " order, all or some of them",
    "middle": "median of each channel over the brain, in the whole volume",
    "spread": "(third - first quartile) / 1.349 of each channel over the brain; at least 0.001 |middle| and 1e-6",
    "clinical": "clinical values and mask features, encoded as `clinical` below has it: for each column the value"
    " (number: (x - mean) / deviation; category: one of n ones), then 1 if it is missing, else 0",
}
_OUTPUTS = {
    "probability": "of tumour in each pixel of the square",
    "logit": "of the answer about each slice; a patient's is the mean over its slices with tumour",
}
_STEPS = [
    "head: FLAIR above the threshold of minimum cross entropy (Li & Lee 1993) of every second row and column of the"
    " volume",
    "square: the rows and columns where, in some slice, the head is at least a quarter as wide as at its widest (95th"
    " percentile), made square around their middle and wider by 2 % of its side each way; the whole image without"
    " `crop`; around the tumour for region `crop`. The same for all slices; beyond the image its edge pixels repeat",
    "brain: in each slice the head with its holes filled, deeper than 8 % of the square root of the largest slice's"
    " head area, and within the head; the head where nothing is that deep",
    "after it: the mask is probability >= threshold, set back where the square was, zero elsewhere; with"
    " largest_component only one connected part of the volume, corners included: of those that cover at most a third of"
    " the head in their slices, if any does, and have at least a fifth of the largest one's pixels, the part with the"
    " highest mean log-odds log(p / (1 - p)), p clipped to 0.0001 to 0.9999; with fill_holes what a slice's outline"
    " encloses is tumour too",
]


def define_flags(flag_values: flags.FlagValues) -> None:
    """Flags of the verb `export`."""
    flags.DEFINE_string("workdir", None, "The training run.", flag_values=flag_values)
    flags.DEFINE_string("output", None, "Folder for the artefacts.", flag_values=flag_values)
    flags.mark_flags_as_required(["workdir", "output"], flag_values)


def main(flag_values: flags.FlagValues) -> int:
    """The verb `export`."""
    output = export(flag_values.workdir, flag_values.output)
    size = (output / "model.stablehlo").stat().st_size / 1e6
    print(f"written: {output}/model.stablehlo ({size:.1f} MB with the weights), saved_model/, preprocess.json")
    return 0


def export(workdir: str | Path, output: str | Path) -> Path:
    """Writes the best weights of a run as artefacts, loads them back, and compares; returns the folder.

    Raises:
      UserError: no finished run, region "masked", a folder that cannot be written, or artefacts that differ.
    """
    workdir, output = Path(workdir), Path(output)
    config = workdir_lib.read_config(workdir)
    if config.data.get("region") == "masked":
        raise UserError(f"{workdir}: config.data.region=masked is not exported", "train with region crop or slice")
    run = segmenter.restore(workdir, config)
    encoder = clinical_encoder(run, workdir)
    finer = run.chosen.finer if "mask" in run.task.OUTPUTS else ()
    function = graph.inference_function(config, run.variables, run.chosen.flip_tta, finer)
    exported = graph.to_stablehlo(function, encoder.width if encoder else 0, len(config.data.channels))
    try:
        output.mkdir(parents=True, exist_ok=True)
        (output / "preprocess.json").unlink(missing_ok=True)  # it is there only beside artefacts that were compared
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
    """The largest difference of a probability: artefacts to the restored model, and to what `evaluate` computes.

    Raises:
      UserError: one is above what rounding explains.
    """
    reference, loaded = jax.jit(function), graph.load(output / "model.stablehlo")
    served = tf.saved_model.load(str(output / "saved_model")).signatures["serving_default"]
    found = {"model.stablehlo": 0.0, "saved_model": 0.0}
    for values, case in examples(run, workdir):
        expected, outputs = reference(values), dict(loaded(values))
        found["model.stablehlo"] = max(found["model.stablehlo"], _difference(outputs, expected))
        tensors = served(**{name: tf.constant(x) for name, x in values.items()})
        found["saved_model"] = max(found["saved_model"], _difference(tensors, expected))
        if case is not None:
            if "probability" in outputs:
                outputs["probability"] = volume.input_grid(np.asarray(outputs["probability"]), case.geometry)
            difference = _difference(outputs, evaluated(run, case))
            found["evaluate"] = max(found.get("evaluate", 0.0), difference)
    print("largest difference of a probability: " + ", ".join(f"{name} {value:.1e}" for name, value in found.items()))
    limit = _TOLERANCE[run.config.model.dtype]
    limits = {"evaluate": max(_LIKE_EVALUATE, limit)}
    wrong = [name for name in found if not found[name] <= limits.get(name, limit)]  # NaN is wrong as well
    if wrong:
        raise UserError(f"{output}: {', '.join(wrong)} differs from the restored model", "do not use these files")
    return found


def examples(run: segmenter.Restored, workdir: Path) -> list[tuple[dict, Case | None]]:
    """Inputs of validation patients with their cases; random inputs, and None, where the run's data is not there."""
    config = run.config
    folders = [folder for folder in (config.data.dir, config.data.get("segmentation_workdir")) if folder]
    members = splits_lib.members(splits_lib.read_splits(workdir / "splits.json"), "validation")
    patients, found = dict(list(members.items())[:_PATIENTS]), []
    if patients and folders and all(Path(folder).is_dir() for folder in folders):
        prepare = run.task.preparation(config, workdir, segmenter.predicted_masks(config), None).prepare
        for case in dataset.load_cases(config, prepare, patients):
            values = graph.inputs(case.scan, case.geometry, config.data.channels)
            values["images"] = values["images"][np.isin(case.scan.slice_index, case.slice_index)]
            clinical = {"clinical": np.tile(case.clinical, (len(case.images), 1))} if len(case.clinical) else {}
            found.append((values | clinical, case))
    return found or [(_random(clinical_encoder(run, workdir), len(config.data.channels)), None)]


def _random(encoder: tabular.Encoder | None, channels: int) -> dict[str, np.ndarray]:
    print("no validation patient's data is there: comparing on random slices")
    rng = np.random.default_rng(0)
    middle, spread = [100, 110, 120, 130][:channels], [30, 40, 50, 60][:channels]
    values = {"images": rng.uniform(0, 255, (3, 100, 100, channels)), "middle": middle, "spread": spread}
    if encoder:
        values["clinical"] = rng.normal(size=(3, encoder.width))
    return {name: np.float32(x) for name, x in values.items()}


def evaluated(run: segmenter.Restored, case: Case) -> dict[str, np.ndarray]:
    """What `evaluate` scores: "probability" (slice, height, width) on the scan's grid, "logit" (row,)."""
    predict, outputs, chosen = run.predictor(), run.task.OUTPUTS, run.chosen
    clinical = [np.tile(case.clinical, (len(case.images), 1))] if "label" in outputs else []

    def output(name: str) -> Predictor:
        def one(variables: dict, images: np.ndarray) -> np.ndarray:
            found = predict(variables, images, *clinical)
            return found[name] if len(outputs) > 1 else found

        return one

    if outputs == ("label",):
        return {"logit": classification.case_logits(predict, run.variables, case, chosen.flip_tta)}
    found = {"probability": case_probability(output("mask"), run.variables, case, chosen.flip_tta, chosen.finer)}
    return found | ({"logit": output("label")(run.variables, case.images)} if "label" in outputs else {})


def _difference(outputs: dict, expected: dict) -> float:
    """The largest over all outputs; logits count as probabilities."""

    def probability(name: str, values) -> np.ndarray:
        values = np.asarray(values, np.float64)
        return expit(values) if name == "logit" else values

    return max(
        float(np.abs(probability(name, x) - probability(name, outputs[name])).max()) for name, x in expected.items()
    )


def describe(exported: jax.export.Exported, config: ml_collections.ConfigDict, encoder: tabular.Encoder | None) -> dict:
    """What preprocess.json says of inputs and outputs, and how to come from one and to the other."""
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
    """How the run's clinical values become numbers; None where it takes none."""
    if not run.config.data.get("tabular"):
        return None
    return restored(run.config, workdir).encoder


def _files(output: Path) -> dict:
    paths = [output / "model.stablehlo", *sorted(path for path in output.glob("saved_model/**/*") if path.is_file())]
    return {"sha256": {str(path.relative_to(output)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}}
