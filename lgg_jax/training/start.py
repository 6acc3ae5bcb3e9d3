"""Start of a run: the config is checked before any data is loaded, and completed with fields of the weights.

    config = checked(config, task, workdir)
"""

from collections.abc import Sequence
from pathlib import Path

import ml_collections
import numpy as np

from lgg_jax import models, parallel
from lgg_jax import workdir as workdir_lib
from lgg_jax.config import check_ranges
from lgg_jax.data.volume import SEQUENCES
from lgg_jax.errors import UserError
from lgg_jax.training.optimizer import check_warmup, create_optimizer
from lgg_jax.weights.pretrained import Pretrained, from_zscore, read_pretrained

EXPECTED = ("stride_on_first", "norm_epsilon", "input_order", "input_scale")  # fields determined by ResNet50 weights


def checked(config: ml_collections.ConfigDict, task, workdir: Path) -> ml_collections.ConfigDict:
    """Check the config of a run and return it resolved.

    Raises:
      UserError: the run cannot start with this config, or `workdir` belongs to a run with another config. The error is
        raised before any data is loaded.
    """
    check_ranges(config)
    parallel.check_batch(config.train.batch_size, config.optimizer.accumulation)
    config = resolve(config)
    task.check(config)
    models.create_model(config.model, frozen=config.optimizer.frozen)
    check_frozen(config)
    create_optimizer(config.optimizer, 1)
    if config.train.num_steps and not (config.train.epochs or config.train.minutes):
        check_warmup(config.optimizer, config.train.num_steps)
    workdir_lib.check(workdir, config)
    return config


def resolve(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """The config with the fields in EXPECTED from the weights of `init_from` or `model.pretrained`.

    The workdir stores the resolved config, so that the run can be evaluated without the file of weights.

    Raises:
      UserError: the model does not fit the channels, the pretrained weights or the run of `init_from`.
    """
    model = config.model
    row = models.network(model.name)
    _check_channels(config.data.channels)
    remedy = "set config.init_from to the workdir of a training run; a resumed run needs it, too"
    before = workdir_lib.read_config(config.init_from, remedy) if config.init_from else None
    if before is not None and tuple(before.data.channels) != tuple(config.data.channels):
        theirs, ours = (tuple(run.data.channels) for run in (before, config))
        raise UserError(f"{config.init_from} was trained on {theirs}, not {ours}", f"set config.data.channels={theirs}")
    _check_inputs(config, row)
    if not row.backbone:
        return config
    config = config.copy_and_resolve_references()
    if before is not None:
        config.model.update({name: before.model.get(name, model[name]) for name in EXPECTED})
    elif model.pretrained:
        config.model.update(_expected(read_pretrained(model.pretrained)))
    return config


def _check_inputs(config: ml_collections.ConfigDict, row: models.Network) -> None:
    """Raise UserError if the network does not support the channels or the pretrained weights of the config."""
    model, data = config.model, config.data
    if model.pretrained and not row.backbone:
        raise UserError(
            f"config.model.pretrained={model.pretrained}: config.model.name={model.name!r} has no pretrained part",
            "leave it empty, or set config.model.name=unet_resnet50",
        )
    takes = f"config.model.name={model.name!r} takes {row.channels} channels"
    if data.context and not row.neighbours:
        raise UserError(f"config.data.context={data.context}: {takes}", "set it to 0")
    if row.channels not in (None, len(data.channels)):
        wrong = f"config.data.channels={tuple(data.channels)}: {takes}"
        raise UserError(wrong, f"name {row.channels} sequences, or use config.model.name=unet")


def _expected(weights: Pretrained) -> dict:
    scale = from_zscore(np.ones(3, np.float32), weights)
    values = weights.stride_on_first, weights.epsilon, weights.channel_order, tuple(float(x) for x in scale)
    return dict(zip(EXPECTED, values, strict=True))


def _check_channels(names: Sequence[str]) -> None:
    if not names or len(set(names)) < len(names) or not set(names) <= set(SEQUENCES):
        wrong = f"config.data.channels={tuple(names)} does not name different sequences"
        known = ", ".join(SEQUENCES)
        remedy = f"choose from {known}, each at most once, in the order of the channels, as in \"('flair', 't1ce')\""
        raise UserError(wrong, remedy)


def check_frozen(config: ml_collections.ConfigDict) -> None:
    """Raise UserError if a frozen module would keep its random initial weights."""
    pretrained = ("backbone",) if config.model.pretrained else ()
    frozen = [name for name in config.optimizer.frozen if name.split("/")[0] not in pretrained]
    if frozen and not config.init_from:
        remedy = "set config.init_from or (for the backbone) config.model.pretrained, or do not freeze it"
        raise UserError(f"config.optimizer.frozen={frozen[0]!r} would stay random", remedy)
