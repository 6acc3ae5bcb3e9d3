"""Segmentation: the loss of a step, the score of a validation, and what is chosen on it."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from lgg_jax import figures, inference, losses, metrics, parallel
from lgg_jax.errors import UserError

THRESHOLDS = (0.3, 0.4, 0.5, 0.6, 0.7)


def loss(config: ml_collections.ConfigDict, logits: jax.Array, batch: dict, all_sum: losses.AllSum):
    """The weighted sum of losses that `config.loss` asks for.

    Args:
      logits: (batch, height, width) float32.
      batch: with mask (batch, height, width) and weight (batch,).
      all_sum: adds up over devices.

    Returns:
      The loss, () float32, and {name: (sum, count)} over the global batch.
    """
    mask, weight = batch["mask"], batch["weight"]
    terms = {
        "bce": lambda: losses.bce(logits, mask, weight, config.positive_weight, all_sum),
        "dice": lambda: losses.soft_dice(logits, mask, weight, all_sum),
        "focal_tversky": lambda: losses.focal_tversky(
            logits, mask, weight, config.tversky_alpha, config.tversky_beta, config.tversky_gamma, all_sum
        ),
    }
    values = {name: term() for name, term in terms.items() if config[name]}
    if not values:
        raise UserError("config.loss has no term with a weight above 0", "set bce, dice or focal_tversky")
    total = sum(config[name] * value for name, value in values.items())
    rows = all_sum(jnp.sum(weight))
    return total, {name: (value * rows, rows) for name, value in {"loss": total, **values}.items()}


def validate(predict: inference.Predictor, variables: dict, cases: list[inference.Case]) -> tuple[float, dict]:
    """Mean volume Dice of this host's cases and all other hosts', at threshold 0.5 and without any clean-up.

    Returns:
      The score and {"volume_dice", "volume_dice_min"}.
    """
    plain = inference.Postprocessing()
    dices = [
        _dice(plain.mask(inference.case_probability(predict, variables, case, False)), case.scan.mask)
        for case in cases
    ]
    dices = parallel.gather(np.array(dices, np.float32))
    scored = dices[~np.isnan(dices)]
    if not len(scored):
        raise UserError("no validation patient has tumour, drawn or predicted", "choose other validation patients")
    return float(scored.mean()), {"volume_dice": float(scored.mean()), "volume_dice_min": float(scored.min())}


def pictures(predict: inference.Predictor, variables: dict, cases: list[inference.Case]) -> dict[str, np.ndarray]:
    """The slice with most tumour of this host's first validation case, truth and prediction outlined: {patient: (1, …)}."""
    drawn = {}
    for case in cases[:1]:
        index = int(case.scan.mask.sum(axis=(1, 2)).argmax())
        one = dataclasses.replace(case, images=case.images[index : index + 1])
        mask = inference.case_probability(predict, variables, one, False)[0] >= 0.5
        drawn[case.scan.patient] = figures.overlay_image(case.scan.image[index], case.scan.mask[index], mask)[None]
    return drawn


def choose(
    predict: inference.Predictor, variables: dict, cases: list[inference.Case], config: ml_collections.ConfigDict
) -> tuple[inference.Postprocessing, float]:
    """The best of `config.eval`'s possibilities by mean volume Dice on validation, and that Dice.

    Of equals the plainest: no flips, no clean-up, the threshold nearest 0.5.
    """
    switches = {"on": (True,), "off": (False,), "choose": (False, True)}
    for name in ("flip_tta", "largest_component"):
        if config[name] not in switches:
            raise UserError(f"config.eval.{name}={config[name]!r} is not known", "use 'on', 'off' or 'choose'")
    thresholds = (config.threshold,) if config.threshold else sorted(THRESHOLDS, key=lambda t: abs(t - 0.5))
    flips, cleanups = switches[config.flip_tta], switches[config.largest_component]
    options = [inference.Postprocessing(*option) for option in itertools.product(flips, cleanups, thresholds)]
    table = []
    for case in cases:
        probability = {flip: inference.case_probability(predict, variables, case, flip) for flip in flips}
        table.append([_dice(option.mask(probability[option.flip_tta]), case.scan.mask) for option in options])
    table = parallel.gather(np.array(table, np.float32).reshape(-1, len(options)))
    scores = np.nanmean(table[~np.isnan(table).all(axis=1)], axis=0)
    best = int(np.argmax(scores))
    return options[best], float(scores[best])


def _dice(prediction: np.ndarray, truth: np.ndarray) -> float:
    tp, fp, fn, _ = metrics.confusion(prediction, truth)
    return float(metrics.dice(tp, fp, fn))
