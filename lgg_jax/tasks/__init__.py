"""What differs between tasks. A task is a module with the functions that train.py and evaluate.py call:

    check(config)                                -> UserError where the config asks for what the task does not have
    preparation(config, workdir, splits)         -> data.grading.Preparation: a scan → a case
    inputs(batch)                                -> what the model takes of a batch
    predictor(model, batch_size)                 -> inference.Predictor
    cached(config, variables, slices, cases, model)  -> slices and cases, with what can be computed once
    loss(config.loss, logits, batch, all_sum)    -> (loss, {name: (sum, count)})
    validate(predict, variables, cases)          -> (score, {name: value}); SCORE names the score
    pictures(predict, variables, cases)          -> {name: (n, height, width, 3) uint8}
    choose(predict, variables, cases, config)    -> (a CHOSEN, score), chosen on validation
    evaluate(predict, variables, cases, chosen, preparation)  -> (metrics, {file: table}, draw)
    pool(folders)                                -> the same of several evaluations together
    about(config)                                -> what metrics.json says of the run beside that
    headline(metrics)                            -> a few lines for a person
"""

from types import ModuleType

from lgg_jax.errors import UserError
from lgg_jax.tasks import classification, joint, segmentation

_TASKS = {"segmentation": segmentation, "classification": classification, "joint": joint}


def get(name: str) -> ModuleType:
    """The module of `config.task`."""
    if name not in _TASKS:
        raise UserError(f"config.task={name!r} is not known", f"use one of {', '.join(_TASKS)}")
    return _TASKS[name]
