"""What differs between tasks. A task is a module with the functions that train.py and evaluate.py call:

    check(config)                                -> UserError where the config asks for what the task does not have
    loss(config.loss, logits, batch, all_sum)    -> (loss, {name: (sum, count)})
    validate(predict, variables, cases)          -> (score, {name: value})
    pictures(predict, variables, cases)          -> {name: (n, height, width, 3) uint8}
    choose(predict, variables, cases, config)    -> (inference.Postprocessing, score), chosen on validation
    evaluate(predict, variables, cases, chosen)  -> (metrics, table, draw)
    headline(metrics)                            -> a few lines for a person
"""

from types import ModuleType

from lgg_jax.errors import UserError
from lgg_jax.tasks import segmentation

_TASKS = {"segmentation": segmentation}


def get(name: str) -> ModuleType:
    """The module of `config.task`."""
    if name not in _TASKS:
        raise UserError(f"config.task={name!r} is not known", f"use one of {', '.join(_TASKS)}")
    return _TASKS[name]
