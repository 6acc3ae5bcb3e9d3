"""Training state: what it starts from, and its random streams.

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
    # Only for its error: the model itself decides which statistics stay.
    selected(initial["batch_stats"], config.model.fixed_norm, "model.fixed_norm", "of which the model has no BatchNorm")
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
