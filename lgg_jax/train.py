"""Training of a model from a config file.

    python -m lgg_jax train --config=configs/unet.py --workdir=W --config.data.dir=DIR [--config.any.field=value]

After an interruption of any kind, the same command resumes the run from its last checkpoint. On the same devices, the
result is bit-for-bit identical to that of an uninterrupted run.
"""

import dataclasses
import math
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_collections
import optax
from absl import flags
from flax import linen as nn
from ml_collections import config_flags

from lgg_jax import config as config_lib
from lgg_jax import models, parallel, segmenter, tasks
from lgg_jax import workdir as workdir_lib
from lgg_jax.data import dataset, pipeline, volume
from lgg_jax.data import splits as splits_lib
from lgg_jax.data.cases import Case
from lgg_jax.errors import UserError
from lgg_jax.inference.predictor import Predictor
from lgg_jax.training import length, logs
from lgg_jax.training import optimizer as optimizer_lib
from lgg_jax.training import start as start_lib
from lgg_jax.training import state as state_lib
from lgg_jax.training.checkpoints import Checkpoints, Progress, restore_variables
from lgg_jax.training.state import TrainState


def define_flags(flag_values: flags.FlagValues) -> None:
    """Define the flags of the verb `train`."""
    text = "Load this config file, such as configs/unet.py; --config.FIELD=VALUE overrides one of its fields."
    config_flags.DEFINE_config_file("config", None, text, flag_values)
    text = "Store the run in this folder; if it already holds the run, resume it."
    flags.DEFINE_string("workdir", None, text, flag_values=flag_values)
    text = "Join the other processes of a multi-host run."
    flags.DEFINE_bool("distributed", False, text, flag_values=flag_values)
    flags.mark_flags_as_required(["config", "workdir"], flag_values)


def main(flag_values: flags.FlagValues) -> int:
    """Run the verb `train`."""
    config_lib.check_complete(flag_values.config)
    if flag_values.distributed:
        parallel.initialize()
    train(flag_values.config, flag_values.workdir)
    return 0


def make_train_step(
    config: ml_collections.ConfigDict, model: nn.Module, optimizer: optax.GradientTransformation
) -> Callable[[TrainState, dict], tuple[TrainState, dict]]:
    """Return train_step(state, batch) → (state, metrics), a pure function for the shard of one device.

    The shard is split into `config.optimizer.accumulation` parts, whose gradients are computed one after another and
    averaged. The metrics are {name: (sum, count)} over the global batch, including `grad_norm`.
    """
    task, parts = tasks.get(config.task), config.optimizer.accumulation

    def loss_fn(params, batch_stats, part, rng):
        params = optimizer_lib.without_gradient(params, config.optimizer.frozen)
        logits, updated = model.apply(
            {"params": params, "batch_stats": batch_stats},
            *task.inputs(part),
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": rng},
        )
        loss, metrics = task.loss(config.loss, logits, part, parallel.all_sum)
        return loss, (updated.get("batch_stats", {}), metrics)

    def train_step(state: TrainState, batch: dict) -> tuple[TrainState, dict]:
        rng = parallel.device_key(state_lib.stream_key(config.seed, state.step, "dropout"))

        batch_stats, gradients, metrics = state.batch_stats, [], []
        # A Python loop instead of `lax.scan`: XLA's CPU backend is much slower at convolutions inside a loop.
        for index in range(parts):
            part = jax.tree.map(lambda x, i=index: jnp.split(x, parts)[i], batch)
            gradient, (batch_stats, metric) = jax.grad(loss_fn, has_aux=True)(
                state.params, batch_stats, part, jax.random.fold_in(rng, index)
            )
            gradients.append(gradient)
            metrics.append(metric)
        gradients, metrics = (jax.tree.map(lambda *x: sum(x), *trees) for trees in (gradients, metrics))
        gradients = parallel.all_mean(jax.tree.map(lambda g: g / parts, gradients))
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        ema = optimizer_lib.update_ema(
            state.ema, {"params": params, "batch_stats": batch_stats}, state.step, config.optimizer.ema_decay
        )
        metrics["grad_norm"] = (optax.tree.norm(gradients), jnp.ones(()))
        return TrainState(state.step + 1, params, batch_stats, opt_state, ema), metrics

    return train_step


def train(config: ml_collections.ConfigDict, workdir: str | Path) -> None:
    """Train a run, or resume it, until its last step or SIGTERM; then choose the post-processing on the validation set.

    Args:
      config: the config, with every field of configs/default.py.
      workdir: the run directory. If the run has started there, it is resumed.

    Raises:
      UserError: the config or the data does not allow the run, or the training diverged.
    """
    started = time.monotonic()
    task, workdir = tasks.get(config.task), Path(workdir).absolute()
    config = start_lib.checked(config, task, workdir)
    resumed = workdir_lib.started(workdir)
    splits = dataset.read_splits(workdir / "splits.json", config) if resumed else dataset.resolve_splits(config)
    tasks.check_splits(splits, config)
    preparation = task.preparation(config, workdir, segmenter.predicted_masks(config), splits)
    slices, cases = load_data(config, splits, preparation.prepare)

    model = models.create_model(config.model, parallel.AXIS, config.optimizer.frozen)
    predict = task.predictor(models.create_model(config.model), config.eval.batch_size)
    initial = restore_variables(config.init_from)[0] if config.init_from else None
    variables = state_lib.initial_variables(config, model, task.inputs(pipeline.sample(slices)), initial)
    slices, cases = task.cached(config, variables, slices, cases, model)

    def start(num_steps: int) -> tuple[Callable, TrainState]:
        optimizer = optimizer_lib.create_optimizer(config.optimizer, num_steps)
        state = state_lib.create_state(config.optimizer, optimizer, variables)
        return parallel.map_step(make_train_step(config, model, optimizer)), parallel.replicate(state)

    def validate(state: TrainState) -> tuple[float, dict]:
        return task.validate(predict, parallel.to_local(state.variables()), cases)

    def pictures(state: TrainState) -> dict:
        return task.pictures(predict, parallel.to_local(state.variables()), cases)

    num_steps = (
        workdir_lib.num_steps(workdir) if resumed else resolve_length(config, slices, start, validate, started)
    )
    train_step, state = start(num_steps)
    parallel.barrier("every host has checked whether the run is resumed")
    if not resumed and parallel.is_first_host():
        workdir_lib.begin(workdir, config, splits, num_steps, preparation.files, dataset.version(config.data))

    if run_steps(config, workdir, slices, num_steps, train_step, state, validate, pictures):
        finish(config, workdir, task, predict, cases, splits)


def run_steps(
    config: ml_collections.ConfigDict, workdir: Path, slices: pipeline.Slices, num_steps: int, train_step: Callable,
    state: TrainState, validate: Callable, pictures: Callable,
) -> bool:
    """Run the training loop from the latest checkpoint; return False if SIGTERM stopped it before its end.

    Args:
      config: the resolved config.
      workdir: the run directory.
      slices: the training slices.
      num_steps: the last step.
      train_step: (state, batch) → (state, metrics) over all devices.
      state: the state at step 0, used if there is no checkpoint.
      validate: state → (score, {name: value}).
      pictures: state → {name: (n, height, width, 3) uint8}.
    """
    with parallel.Preemption() as preemption, Checkpoints(workdir) as checkpoints:
        # The state comes from the latest checkpoint in `workdir`, otherwise from `config.init_from`, otherwise from
        # pretrained or random weights. Batches and random keys depend only on the step: nothing of them is stored.
        step, progress = checkpoints.latest_step() or 0, Progress()
        if step:
            state, progress = checkpoints.restore(step, state)
        with logs.Logger(workdir / "logs", step, num_steps) as logger:
            for batch in pipeline.train_batches(slices, config, step, num_steps, *parallel.host()):
                if 0 < config.train.patience <= progress.stale:
                    logger.note(f"early stopping: {progress.stale} validations without a new best score")
                    break
                state, metrics = train_step(state, parallel.shard(batch))
                step += 1
                logger.add(metrics)
                stop, due = preemption.reached(step), due_after(step, num_steps, config.train)
                if stop or any(due.values()):
                    check_finite(logger.flush(step), step, workdir)
                if due["eval"]:
                    score, values = validate(state)
                    progress = progress.after(step, score)
                    logger.scalars(step, "validation", values)
                    logger.images(step, pictures(state))
                if stop or due["checkpoint"] or progress.best_step == step:
                    checkpoints.save(step, state, progress)
                if stop:
                    checkpoints.wait()
                    logger.note(f"stopped by SIGTERM at step {step}, which is saved; run the same command to resume")
                    return False
    return True


def due_after(step: int, num_steps: int, config: ml_collections.ConfigDict) -> dict[str, bool]:
    """Return which of "log", "eval" and "checkpoint" are due after `step`: by their interval, and at the last step.

    `config` is `config.train`.
    """
    every = {"log": config.log_every, "eval": config.eval_every, "checkpoint": config.checkpoint_every}
    return {name: step == num_steps or step % interval == 0 for name, interval in every.items()}


def check_finite(means: dict[str, float], step: int, workdir: Path) -> None:
    """Raise UserError if a mean is NaN or infinite. Called before each checkpoint, so none has diverged weights."""
    bad = [name for name, mean in means.items() if not math.isfinite(mean)]
    if bad:
        raise UserError(
            f"the training diverged at or before step {step} ({', '.join(bad)} not finite); {workdir}/checkpoints"
            " keeps the last good checkpoint",
            "use another --workdir with a smaller config.optimizer.learning_rate or config.optimizer.clip_norm=1",
        )


def load_data(
    config: ml_collections.ConfigDict, splits: dict, prepare: Callable[[volume.Volume], Case | None]
) -> tuple[pipeline.Slices, list[Case]]:
    """Load the data in one pass.

    Args:
      config: the config of the run.
      splits: the content of splits.json.
      prepare: scan → case; None if the label of the patient is unknown. Such patients are skipped.

    Returns:
      The slices of the training patients, and the cases of this host's validation patients.

    Raises:
      UserError: a patient has no mask.
    """
    train, validation = (splits_lib.members(splits, name) for name in ("train", "validation"))
    local_validation = {patient: validation[patient] for patient in parallel.host_items(sorted(validation))}
    training, cases, skipped = [], [], []
    for scan in dataset.load_volumes(config.data, sorted(train | local_validation)):
        case = prepare(scan)
        if case is None:
            skipped.append(scan.patient)
            continue
        if case.masks is None:
            raise UserError(f"patient {scan.patient} has no mask", "train and validate on patients with masks only")
        if scan.patient in local_validation:
            cases.append(case.select(splits_lib.rows(local_validation[scan.patient], case.slice_index)))
        if scan.patient in train:
            rows = case.select(splits_lib.rows(train[scan.patient], case.slice_index))
            # Training does not use the image of the scan, which takes much memory.
            training.append(dataclasses.replace(rows, scan=scan.without_image()))
    cases = [case for case in cases if len(case.images)]  # In a split by slice, a patient may have no slice left.
    if skipped and parallel.is_first_host():
        names = ", ".join(skipped[:5]) + ", …" * (len(skipped) > 5)
        print(f"skipped because their label is unknown: {len(skipped)} patients ({names})")
    return pipeline.load_slices(training), cases


def resolve_length(config, slices: pipeline.Slices, start, validate, started: float) -> int:
    """Return the number of steps of a new run.

    If `config.train` limits the minutes, the rate is measured on steps whose results are discarded.

    Args:
      config: the config of the run.
      slices: the training slices.
      start: number of steps → (train_step, initial state).
      validate: computes the validation score of a state.
      started: `time.monotonic()` when the command started.
    """
    num_steps = length.steps_without_clock(config.train, len(slices.image))
    if num_steps is None:
        train_step, state = start(1)
        # With `train.start_size`, a run has two stages with different slice sizes. Of a run of 10^6 steps, the first
        # steps of each stage are measured.
        total = 10**6
        share = pipeline.start_steps(config.train, total) / total

        def stage(first_step: int) -> Callable[[], None]:
            batches = pipeline.train_batches(slices, config, first_step, total, *parallel.host())

            def step():
                nonlocal state
                state, metrics = train_step(state, parallel.shard(next(batches)))
                jax.block_until_ready(metrics)

            return step

        stages = [(part, stage(first)) for part, first in ((share, 0), (1 - share, round(share * total))) if part]
        choice = length.choice_cost(config)
        num_steps = length.measure_steps(config.train, stages, lambda: validate(state), started, choice)
    num_steps = parallel.from_first_host(num_steps)
    optimizer_lib.check_warmup(config.optimizer, num_steps)
    return num_steps


def finish(config, workdir: Path, task, predict: Predictor, cases: list[Case], splits: dict) -> None:
    """Choose the post-processing of the best weights on the validation set and write it to postprocess.json."""
    variables, step = restore_variables(workdir)
    chosen, score = task.choose(predict, variables, cases, config.eval)
    if parallel.is_first_host():
        content = {**dataclasses.asdict(chosen), "step": step, f"validation_{task.SCORE}": score}
        workdir_lib.write_json(workdir / "postprocess.json", content)
        print(f"best step {step}: validation {task.SCORE} {score:.4f} with {chosen}")
        print(f"to evaluate: {workdir_lib.evaluate_command(workdir, splits)}")
