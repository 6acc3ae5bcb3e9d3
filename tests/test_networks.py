"""Every segmentation network: training, resuming, restoring, evaluation, prediction and export."""

import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import default, smoke
from lgg_jax import export, models, parallel, train
from lgg_jax.data.cases import prepare_case
from lgg_jax.data.layouts import kaggle
from lgg_jax.models import NETWORKS, create_model
from lgg_jax.segmenter import load_segmenter
from lgg_jax.training.checkpoints import restore_variables

SEGMENTING = [name for name, row in NETWORKS.items() if "mask" in row.outputs]
STEPS, STOP = 8, 4
FIELDS = {
    "model.levels": 3, "model.features": 8, "model.dropout": 0.1, "optimizer.ema_decay": 0.9,
    "train.num_steps": STEPS, "train.checkpoint_every": STOP, "train.eval_every": STEPS, "train.log_every": STOP,
}  # fmt: skip


@pytest.fixture(scope="module", params=SEGMENTING)
def name(request, small_resnet) -> str:
    return request.param


@pytest.fixture(scope="module")
def config(name, small_phantoms):
    """configs/smoke.py with this network, and with neighbouring slices if the network supports them."""
    made = smoke.get_config()
    this = {"model.name": name, "data.dir": str(small_phantoms), "data.context": int(NETWORKS[name].neighbours)}
    made.update_from_flattened_dict(FIELDS | this)
    return made


@pytest.fixture(scope="module")
def run(config, tmp_path_factory):
    """An uninterrupted run."""
    workdir = tmp_path_factory.mktemp("networks") / "run"
    train.train(config, workdir)
    return workdir


@pytest.fixture(scope="module")
def resumed(config, tmp_path_factory):
    """The same run, stopped after STOP steps and resumed."""
    workdir = tmp_path_factory.mktemp("networks") / "resumed"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parallel.Preemption, "reached", lambda _, step: step == STOP)
        train.train(config, workdir)
    assert not (workdir / "postprocess.json").exists()
    train.train(config, workdir)
    return workdir


def test_a_resumed_run_has_bitwise_identical_weights(run, resumed):
    before, after = (restore_variables(workdir)[0] for workdir in (run, resumed))
    assert jax.tree.all(jax.tree.map(lambda a, b: np.array_equal(a, b), before, after))
    assert jax.tree.leaves(before)


def test_every_parameter_has_a_gradient(name):
    config = default.get_config().model
    config.update({"name": name, "levels": 3, "features": 8})
    model, rng = create_model(config), np.random.default_rng(0)
    image = jnp.asarray(rng.normal(size=(2, 32, 32, 3)), jnp.float32)
    variables = model.init(jax.random.key(0), image, train=False)

    def loss(params):
        logits, _ = model.apply(variables | {"params": params}, image, train=True, mutable=["batch_stats"])
        return jnp.sum(jnp.sin(jnp.arange(logits.size).reshape(logits.shape)) * logits)

    for path, gradient in jax.tree_util.tree_leaves_with_path(jax.grad(loss)(variables["params"])):
        assert np.isfinite(gradient).all() and np.abs(gradient).max() > 0, jax.tree_util.keystr(path)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_shape_and_dtype_of_the_logits(name, dtype):
    for norm in NETWORKS[name].norms:
        config = default.get_config().model
        config.update({"name": name, "levels": 3, "features": 8, "norm": norm, "dtype": dtype})
        image = jax.ShapeDtypeStruct((2, 64, 96, 3), jnp.float32)
        init = partial(create_model(config).init_with_output, train=False)
        logits, variables = jax.eval_shape(init, jax.random.key(0), image)
        assert logits.shape == (2, 64, 96) and logits.dtype == jnp.float32
        assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(variables))
        assert models.outputs(config) == NETWORKS[name].outputs


def test_evaluate_and_predict(run, small_phantoms, lgg, tmp_path):
    assert lgg("evaluate", f"--workdir={run}").code == 0
    metrics = json.loads((run / "eval" / "test" / "metrics.json").read_text())
    assert metrics["volume_dice"]["n"] > 0 and 0 <= metrics["volume_dice"]["mean"] <= 1
    patient = sorted(path for path in small_phantoms.iterdir() if path.is_dir())[0]
    ended = lgg("predict", f"--workdir={run}", f"--input={patient}", f"--output={tmp_path}/out")
    assert ended.code == 0, ended.err
    assert len(list((tmp_path / "out").rglob("*_mask.tif"))) == len(list(patient.glob("*_mask.tif")))


def test_a_restored_run_gives_the_probabilities_of_the_module(run, small_phantoms):
    """The restored predictor, which computes in batches, equals one call of the module."""
    scan = next(kaggle.load_volumes(small_phantoms))
    (restored,) = load_segmenter([str(run)]).runs
    case = prepare_case(scan, restored.data)
    config = smoke.get_config().model
    config.update(json.loads((run / "config.json").read_text())["model"])
    variables, _ = restore_variables(run)
    logits = create_model(config).apply(variables, case.images.astype(np.float32), train=False)
    probability = restored.predict(restored.variables, case.images)
    np.testing.assert_allclose(probability, jax.nn.sigmoid(logits), atol=1e-5)


def test_export(run, tmp_path):
    """`export` compares both files with the restored run and raises if they differ."""
    output = export.export(run, tmp_path / "exported")
    differences = json.loads((output / "preprocess.json").read_text())["differences"]
    assert set(differences) == {"model.stablehlo", "saved_model", "evaluate"}
