"""What a training step changes, and the optimizer that changes it.

    optimizer = create_optimizer(config.optimizer, num_steps)
    state = create_state(config.optimizer, optimizer, initial_variables(config, model, inputs))
"""

from collections.abc import Sequence
from functools import partial

import flax
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
from flax import linen as nn
from flax import traverse_util

from lgg_jax import parallel
from lgg_jax.errors import UserError
from lgg_jax.weights.pretrained import read_pretrained

STREAMS = {"init": 0, "dropout": 1}


@flax.struct.dataclass
class TrainState:
    """An ordinary pytree, the same on every device.

    Attributes:
      step: () int32, updates done so far; every random number of the next step derives from it.
      params, batch_stats: the model's variables.
      opt_state: of the optimizer.
      ema: {"params", "batch_stats"} averaged over steps, or None.
    """

    step: jax.Array
    params: dict
    batch_stats: dict
    opt_state: optax.OptState
    ema: dict | None

    def variables(self) -> dict:
        """What evaluation uses: the averaged weights where there are any."""
        return self.ema or {"params": self.params, "batch_stats": self.batch_stats}


def stream_key(seed: int, step: jax.Array | int, stream: str) -> jax.Array:
    """The key of a named random stream at a step: derived, never stored, so it is never lost at a resume."""
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), step), STREAMS[stream])


def initial_variables(
    config: ml_collections.ConfigDict, model: nn.Module, inputs: tuple[np.ndarray, ...], variables: dict | None = None
) -> dict:
    """{"params", "batch_stats"} that a new run starts from.

    `variables`, the best weights of `config.init_from`, where given; else initialised, with the backbone of
    `config.model.pretrained` where one is named. `inputs` are those of the model, of any number of rows.

    Raises:
      UserError: weights of another model, or `config.model.fixed_norm` names a module without BatchNorm.
    """
    initial = _initial(config, model, inputs, variables)
    unknown = _unknown(config.model.fixed_norm, initial["batch_stats"])
    if unknown:
        names = ", ".join(sorted(initial["batch_stats"]))
        raise UserError(
            f"config.model.fixed_norm names {unknown}, of which the model has no BatchNorm",
            f"choose from {names}" if names else "leave it empty",
        )
    return initial


def _initial(
    config: ml_collections.ConfigDict, model: nn.Module, inputs: tuple[np.ndarray, ...], variables: dict | None
) -> dict:
    init, key = partial(model.init, train=False), stream_key(config.seed, 0, "init")
    if variables is not None:
        remedy = "give this run the config.model and config.data of that one"
        source = f"config.init_from={config.init_from}"
        _check_shapes(variables, _two(jax.eval_shape(init, key, *inputs)), source, remedy)
        return _two(variables)
    # XLA's CPU compiler otherwise takes half a minute over the random numbers of all kernels; they stay the same.
    options = {"xla_backend_optimization_level": 1} if parallel.on_cpu() else None
    variables = _two(jax.jit(init, compiler_options=options)(key, *inputs))
    if config.model.pretrained:
        return _with_backbone(variables, config.model.pretrained)
    return variables


def _with_backbone(variables: dict, path: str) -> dict:
    given = {
        name: {module: leaves for module, leaves in part.items() if module != "head"}  # the 1000 classes
        for name, part in read_pretrained(path).variables.items()
    }
    expected = {name: part["backbone"] for name, part in variables.items()}
    remedy = "pass what python -m lgg_jax convert wrote of a ResNet50"
    _check_shapes(given, expected, f"config.model.pretrained={path}", remedy)
    return {name: part | {"backbone": given[name]} for name, part in variables.items()}


def _two(variables: dict) -> dict:
    return {"params": variables["params"], "batch_stats": variables.get("batch_stats", {})}


def create_state(
    config: ml_collections.ConfigDict, optimizer: optax.GradientTransformation, variables: dict
) -> TrainState:
    """A state at step 0; `config` is `config.optimizer`."""
    # The training step reuses the memory of its state: nothing in it may be shared, with the caller or within.
    ema = jax.tree.map(jnp.array, variables) if config.ema_decay else None
    params, batch_stats = jax.tree.map(jnp.array, (variables["params"], variables["batch_stats"]))
    return TrainState(jnp.zeros((), jnp.int32), params, batch_stats, optimizer.init(params), ema)


def _check_shapes(variables: dict, expected: dict, source: str, remedy: str) -> None:
    """UserError where `variables`, which come from `source`, are not those of the model."""
    given, expected = (
        {"/".join(path): leaf.shape for path, leaf in traverse_util.flatten_dict(tree).items()}
        for tree in (variables, expected)
    )
    wrong = sorted(path for path in given | expected if given.get(path) != expected.get(path))
    if wrong:
        raise UserError(
            f"{source} holds another model ({wrong[0]} is {given.get(wrong[0], 'missing')} there,"
            f" {expected.get(wrong[0], 'missing')} here)",
            remedy,
        )


def create_schedule(config: ml_collections.ConfigDict, num_steps: int) -> optax.Schedule:
    """Learning rate by step: linear warm-up, then constant or a half cosine to zero at `num_steps`."""
    if config.schedule == "constant":
        main = optax.constant_schedule(config.learning_rate)
    elif config.schedule == "cosine":
        main = optax.cosine_decay_schedule(config.learning_rate, max(1, num_steps - config.warmup_steps))
    else:
        raise UserError(
            f"config.optimizer.schedule={config.schedule!r} is not known", "use 'constant' or 'cosine'"
        )
    warmup = optax.linear_schedule(0.0, config.learning_rate, max(1, config.warmup_steps))
    return optax.join_schedules([warmup, main], [config.warmup_steps])


def create_optimizer(config: ml_collections.ConfigDict, num_steps: int) -> optax.GradientTransformation:
    """Adam or AdamW by `config`, after clipping; `backbone_rate` scales one part's updates, `frozen` parts get none."""
    schedule = create_schedule(config, num_steps)
    if config.name == "adam":
        update = optax.adam(schedule)
    elif config.name == "adamw":
        update = optax.adamw(schedule, weight_decay=config.weight_decay, mask=_kernels)
    else:
        raise UserError(f"config.optimizer.name={config.name!r} is not known", "use 'adam' or 'adamw'")
    if config.clip_norm:
        update = optax.chain(optax.clip_by_global_norm(config.clip_norm), update)
    if config.backbone_rate != 1:
        slower = optax.masked(optax.scale(config.backbone_rate), partial(_modules, names=("backbone",)))
        update = optax.chain(update, slower)
    if config.frozen:
        labels = {True: optax.set_to_zero(), False: update}
        update = optax.partition(labels, partial(_modules, names=tuple(config.frozen)))
    return update


def update_ema(ema: dict | None, variables: dict, step: jax.Array, decay: float) -> dict | None:
    """ema·d + variables·(1 − d), d rising to `decay` as (1 + step) / (10 + step) so that the start is forgotten."""
    if ema is None:
        return None
    rate = 1 - jnp.minimum(decay, (1 + step) / (10 + step))
    return optax.incremental_update(variables, ema, rate)


def _kernels(params: dict) -> dict:
    """True for kernels: decaying biases and normalisation scales only hurts (He et al. 2019)."""
    return traverse_util.path_aware_map(lambda path, _: path[-1] == "kernel", params)


def without_gradient(params: dict, frozen: tuple[str, ...]) -> dict:
    """`params`, of which the frozen ones give no gradient: backpropagation ends after the last frozen layer."""
    frozen = _modules(params, tuple(frozen))
    return jax.tree.map(lambda leaf, stays: jax.lax.stop_gradient(leaf) if stays else leaf, params, frozen)


def _modules(params: dict, names: tuple[str, ...]) -> dict:
    """True for the parameters of the modules of these names, "module" or "module/part/…"."""
    unknown = _unknown(names, params)
    if unknown:
        raise UserError(
            f"config.optimizer.frozen or backbone_rate names {unknown}, which the model does not have",
            f"choose from {', '.join(sorted(params))}" + (", or backbone/PART" if "backbone" in params else ""),
        )
    return traverse_util.path_aware_map(lambda path, _: _in(path, names), params)


def _unknown(names: Sequence[str], tree: dict) -> list[str]:
    """Those of `names` that nothing in a tree of variables belongs to."""
    paths = list(traverse_util.flatten_dict(tree))
    return sorted(name for name in names if not any(_in(path, (name,)) for path in paths))


def _in(path: tuple[str, ...], names: Sequence[str]) -> bool:
    return any(path[: name.count("/") + 1] == tuple(name.split("/")) for name in names)
