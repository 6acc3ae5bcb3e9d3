"""Training state, initial variables and random streams.

    optimizer = create_optimizer(config.optimizer, num_steps)
    state = create_state(config.optimizer, optimizer, initial_variables(config, model, inputs))
"""

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
from lgg_jax.training.optimizer import selected
from lgg_jax.weights.pretrained import read_pretrained

STREAMS = {"init": 0, "dropout": 1}


@flax.struct.dataclass
class TrainState:
    """The training state, a pytree that is equal on every device.

    Attributes:
      step: () int32, the number of updates so far; all random numbers of the next step are derived from it.
      params, batch_stats: variables of the model.
      opt_state: state of the optimizer.
      ema: exponential moving average of {"params", "batch_stats"}, or None.
    """

    step: jax.Array
    params: dict
    batch_stats: dict
    opt_state: optax.OptState
    ema: dict | None

    def variables(self) -> dict:
        """The variables for evaluation: the EMA of the weights if there is one, else the weights."""
        return self.ema or {"params": self.params, "batch_stats": self.batch_stats}


def stream_key(seed: int, step: jax.Array | int, stream: str) -> jax.Array:
    """The key of a random stream at a step. It is derived and never stored, so a resumed run has the same keys."""
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), step), STREAMS[stream])


def initial_variables(
    config: ml_collections.ConfigDict, model: nn.Module, inputs: tuple[np.ndarray, ...], variables: dict | None = None
) -> dict:
    """The variables that a new run starts from.

    Args:
      config: the config of the run.
      model: the model.
      inputs: inputs of the model, with any number of rows.
      variables: the best weights of the run `config.init_from`. None to initialise the model at random, with the
        backbone of `config.model.pretrained` if that field is set.

    Returns:
      {"params", "batch_stats"}.

    Raises:
      UserError: the weights are those of another model, or `config.model.fixed_norm` names a module without BatchNorm.
    """
    initial = _initial(config, model, inputs, variables)
    # This call only checks the names; the model itself keeps the statistics fixed.
    selected(initial["batch_stats"], config.model.fixed_norm, "model.fixed_norm", "of which the model has no BatchNorm")
    return initial


def _initial(
    config: ml_collections.ConfigDict, model: nn.Module, inputs: tuple[np.ndarray, ...], variables: dict | None
) -> dict:
    init, key = partial(model.init, train=False), stream_key(config.seed, 0, "init")
    if variables is not None:
        remedy = "give this run the config.model and config.data of that one"
        source = f"config.init_from={config.init_from}"
        _check_shapes(variables, _params_and_stats(jax.eval_shape(init, key, *inputs)), source, remedy)
        return _params_and_stats(variables)
    # On a CPU, XLA takes half a minute to compile the random initialisation at its default level. The values are equal.
    options = {"xla_backend_optimization_level": 1} if parallel.on_cpu() else None
    variables = _params_and_stats(jax.jit(init, compiler_options=options)(key, *inputs))
    if config.model.pretrained:
        return _with_backbone(variables, config.model.pretrained)
    return variables


def _with_backbone(variables: dict, path: str) -> dict:
    pretrained = {
        name: {module: leaves for module, leaves in part.items() if module != "head"}  # without the 1000 classes
        for name, part in read_pretrained(path).variables.items()
    }
    expected = {name: part["backbone"] for name, part in variables.items()}
    remedy = "pass a ResNet50 that python -m lgg_jax convert wrote"
    _check_shapes(pretrained, expected, f"config.model.pretrained={path}", remedy)
    return {name: part | {"backbone": pretrained[name]} for name, part in variables.items()}


def _params_and_stats(variables: dict) -> dict:
    return {"params": variables["params"], "batch_stats": variables.get("batch_stats", {})}


def create_state(
    config: ml_collections.ConfigDict, optimizer: optax.GradientTransformation, variables: dict
) -> TrainState:
    """The training state at step 0; `config` is `config.optimizer`."""
    # The training step donates the memory of the state, so no array may be shared, within the state or with the caller.
    ema = jax.tree.map(jnp.array, variables) if config.ema_decay else None
    params, batch_stats = jax.tree.map(jnp.array, (variables["params"], variables["batch_stats"]))
    return TrainState(jnp.zeros((), jnp.int32), params, batch_stats, optimizer.init(params), ema)


def _check_shapes(variables: dict, expected: dict, source: str, remedy: str) -> None:
    """Raise UserError if the names or shapes of `variables`, which come from `source`, differ from `expected`."""
    actual, expected = (
        {"/".join(path): leaf.shape for path, leaf in traverse_util.flatten_dict(tree).items()}
        for tree in (variables, expected)
    )
    wrong = sorted(path for path in actual | expected if actual.get(path) != expected.get(path))
    if wrong:
        raise UserError(
            f"{source} holds another model ({wrong[0]} is {actual.get(wrong[0], 'missing')} there,"
            f" {expected.get(wrong[0], 'missing')} here)",
            remedy,
        )
