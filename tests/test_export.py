"""`export`: in JAX and TensorFlow, the files give the probabilities of `evaluate` for any number of slices."""

import dataclasses
import hashlib
import json
import shutil

import jax
import jax.export
import numpy as np
import pytest
import tensorflow as tf
from scipy.special import expit

from configs import grade_resnet50, multitask
from lgg_jax import export, models, segmenter
from lgg_jax import workdir as workdir_lib
from lgg_jax.data import cases, dataset, volume
from lgg_jax.errors import UserError
from lgg_jax.inference import graph
from lgg_jax.inference.predictor import Postprocessing, case_probability, make_predictor
from lgg_jax.training.checkpoints import restore_variables


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory):
    output = tmp_path_factory.mktemp("exported") / "out"
    export.export(trained, output)
    return output


@pytest.fixture(scope="module")
def scan(trained):
    return next(dataset.load_volumes(workdir_lib.read_config(trained).data))


def random_inputs(count: int, side: int) -> dict:
    rng = np.random.default_rng(count)
    values = {"images": rng.uniform(0, 255, (count, side, side, 3)), "middle": [90, 100, 110], "spread": [20, 30, 40]}
    return {name: np.float32(x) for name, x in values.items()}


@pytest.mark.parametrize("before, after", [(100, 64), (64, 100), (37, 64), (64, 64), (3, 1)])
def test_resizing_equals_that_of_the_preparation(before, after):
    planes = np.random.default_rng(0).normal(size=(2, before, before)).astype(np.float32)
    square = volume.Geometry(0, 0, before, before, before, after)
    expected = volume.network_masks(planes, square)
    np.testing.assert_allclose(graph.resize(planes[..., None], after)[..., 0], expected, atol=5e-6)


@pytest.mark.parametrize("crop", [True, False])
@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.float32])
def test_normalised_inputs_equal_the_training_images(scan, crop, kind):
    image = scan.image.astype(kind) * (1 if kind is np.uint8 else 3)
    geometry = volume.find_geometry(image, 48, crop)
    values = graph.inputs(volume.Volume("P", image, None, scan.slice_index, {}), geometry)
    x = np.clip((values["images"] - values["middle"]) / values["spread"], -5, 5)
    np.testing.assert_allclose(graph.resize(x, 48), volume.network_images(image, geometry), atol=1e-5)


def test_both_files_give_the_probabilities_of_evaluate(exported, trained, scan):
    config = workdir_lib.read_config(trained)
    chosen = workdir_lib.read_chosen(trained, Postprocessing)
    case = cases.prepare_case(scan, config.data)
    predict = make_predictor(models.create_model(config.model), 4)
    expected = case_probability(predict, restore_variables(trained)[0], case, chosen.flip_tta)
    assert expected.max() - expected.min() > 0.1
    values = graph.inputs(scan, case.geometry)
    served = tf.saved_model.load(str(exported / "saved_model")).signatures["serving_default"]
    for outputs in (graph.load(exported / "model.stablehlo")(values), served(**values)):
        probability = volume.input_grid(np.asarray(outputs["probability"]), case.geometry)
        np.testing.assert_allclose(probability, expected, atol=2e-3)


def test_any_number_of_slices_of_any_side(exported):
    load = graph.load(exported / "model.stablehlo")
    served = tf.saved_model.load(str(exported / "saved_model")).signatures["serving_default"]
    for count, side in ((1, 64), (3, 50), (16, 33)):
        values = random_inputs(count, side)
        outputs, tensors = load(values)["probability"], served(**values)["probability"]
        assert outputs.shape == tensors.shape == (count, side, side)
        np.testing.assert_allclose(outputs, tensors, atol=1e-5)
    with pytest.raises(ValueError, match="side"):
        load(values | {"images": values["images"][:, :-1]})


def test_the_file_supports_all_platforms(exported):
    restored = jax.export.deserialize(bytearray((exported / "model.stablehlo").read_bytes()))
    assert restored.platforms == ("cpu", "cuda", "tpu")
    assert [str(x) for x in graph.named_inputs(restored)["images"].shape] == ["slice", "side", "side", "3"]


def test_preprocess_json_describes_the_files(exported, trained):
    about = json.loads((exported / "preprocess.json").read_text())
    config = workdir_lib.read_config(trained)
    assert about["channels"] == ["pre-contrast", "FLAIR", "post-contrast"]
    assert about["size"] == config.data.size and about["step"] == restore_variables(trained)[1]
    assert about["chosen"] == vars(workdir_lib.read_chosen(trained, Postprocessing))
    assert about["inputs"]["images"]["shape"] == ["slice", "side", "side", 3]
    assert set(about["inputs"]) == {"images", "middle", "spread"} and set(about["outputs"]) == {"probability"}
    assert set(about["differences"]) == {"model.stablehlo", "saved_model", "evaluate"}
    assert {"model.stablehlo", "saved_model/saved_model.pb"} <= set(about["sha256"])
    for name, digest in about["sha256"].items():
        assert hashlib.sha256((exported / name).read_bytes()).hexdigest() == digest


@pytest.mark.parametrize("flip, names, finer", [(False, ("t1", "flair", "t1ce"), (8, 32)), (True, ("t1ce", "t2"), ())])
def test_the_function_has_tta_grids_neighbours_and_channels(trained, scan, flip, names, finer):
    t2 = np.random.default_rng(0).integers(0, 255, scan.image.shape[:3], np.uint8)
    scan = dataclasses.replace(scan, image=np.concatenate([scan.image, t2[..., None]], axis=-1))
    config = workdir_lib.read_config(trained)
    fields = {"data.context": 1, "data.channels": names, "model.levels": 2, "model.features": 2}
    config.update_from_flattened_dict(fields)
    case = cases.prepare_case(scan, config.data)
    model = models.create_model(config.model)
    variables = model.init(jax.random.key(1), np.float32(case.images[:1]), train=False)
    expected = case_probability(make_predictor(model, 8), variables, case, flip, finer)
    outputs = graph.inference_function(config, variables, flip, finer)(graph.inputs(scan, case.geometry, names))
    probability = volume.input_grid(np.asarray(outputs["probability"]), case.geometry)
    np.testing.assert_allclose(probability, expected, atol=2e-3)
    assert np.abs(expected - expected[:, :, ::-1]).max() > 0.01


@pytest.mark.parametrize("recipe, outputs", [(grade_resnet50, {"logit"}), (multitask, {"logit", "probability"})])
def test_a_grade_model_with_clinical_values(small_resnet, tmp_path, recipe, outputs):
    config = recipe.get_config()
    config.update_from_flattened_dict({"data.size": 32, "model.features": 4, "model.hidden": (8,)})
    width = 3 if recipe is grade_resnet50 else 0
    model, rng = models.create_model(config.model), np.random.default_rng(0)
    x, clinical = rng.normal(size=(4, 32, 32, 3)).astype(np.float32), rng.normal(size=(4, width)).astype(np.float32)
    variables = model.init(jax.random.key(0), x, clinical, train=False)
    exported = graph.to_stablehlo(graph.inference_function(config, variables, False), width)
    (tmp_path / "model").write_bytes(exported.serialize())
    graph.save_tensorflow(exported, tmp_path / "saved")
    values = {"images": x, "middle": np.zeros(3, np.float32), "spread": np.ones(3, np.float32)}
    values |= {"clinical": clinical} if width else {}
    logits = model.apply(variables, x, clinical, train=False)
    logits = logits if isinstance(logits, dict) else {"label": logits}
    served = tf.saved_model.load(str(tmp_path / "saved")).signatures["serving_default"]
    for result in (graph.load(tmp_path / "model")(values), served(**values)):
        assert set(result) == outputs
        np.testing.assert_allclose(result["logit"], logits["label"], atol=1e-4, rtol=1e-4)
        if "mask" in logits:
            np.testing.assert_allclose(result["probability"], expit(logits["mask"]), atol=1e-5)


def test_comparison_on_random_slices_without_the_data(trained, tmp_path, capsys):
    config = workdir_lib.read_config(trained)
    config.data.dir = str(tmp_path / "gone")
    config.data.channels = ("t2", "flair")
    ((values, case),) = export.examples(segmenter.restore(trained, config), trained)
    assert case is None and values["images"].shape == (3, 100, 100, 2) and values["middle"].shape == (2,)
    assert "random slices" in capsys.readouterr().out


def test_files_with_other_weights_are_refused(exported, trained):
    config = workdir_lib.read_config(trained)
    config.data.dir = ""
    run = segmenter.restore(trained, config)
    other = run._replace(variables=jax.tree.map(lambda x: 1.1 * x, run.variables), chosen=Postprocessing())
    function = graph.inference_function(config, other.variables, False)
    with pytest.raises(UserError, match="differs from the restored model"):
        export.compare(exported, other, trained, function)


def test_user_errors_are_one_line(trained, tmp_path, lgg):
    (tmp_path / "file").touch()
    unfinished = tmp_path / "unfinished"
    unfinished.mkdir()
    shutil.copy(trained / "config.json", unfinished)
    for workdir, output, expected in (
        (tmp_path / "none", tmp_path / "o", "pass the --workdir of a training run"),
        (unfinished, tmp_path / "o", "complete the training first"),
        (trained, tmp_path / "file", "pass another --output"),
    ):
        ended = lgg("export", f"--workdir={workdir}", f"--output={output}")
        assert ended.code == 2 and expected in ended.err and len(ended.err.splitlines()) == 1
