"""Segmentation: the loss of a step, the score of a validation, and what is chosen on it."""

import dataclasses
import itertools
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pandas as pd
import tqdm
from flax import linen as nn

from lgg_jax import parallel
from lgg_jax.data import volume
from lgg_jax.data.cases import Case, prepare_case
from lgg_jax.data.pipeline import Slices
from lgg_jax.errors import UserError
from lgg_jax.figures.masks import case_layers, dice_distribution, key_slice, overlay_grid, overlay_image
from lgg_jax.inference.predictor import Postprocessing, Predictor, case_mask, case_probability, make_predictor
from lgg_jax.metrics import overlap
from lgg_jax.metrics.segmentation import score_case, summarise
from lgg_jax.tasks.checks import CHOICES, check_outputs, check_segmentation
from lgg_jax.tasks.preparation import Preparation, Segment
from lgg_jax.tasks.results import Results, patient_columns, read_tables
from lgg_jax.training import losses

THRESHOLDS = (0.3, 0.4, 0.5, 0.6, 0.7)
OUTPUTS = ("mask",)
SCORE = "volume_dice"
NO_TUMOUR = "no validation patient has tumour, drawn or predicted"
CHOSEN = Postprocessing


def check(config: ml_collections.ConfigDict) -> None:
    """Raise UserError where the config asks for what this task does not have."""
    check_outputs(config, OUTPUTS, "does not give a mask alone")
    if config.data.region != "slice" or config.data.tabular or config.data.segmentation_workdir:
        wrong = "config.data.region, tabular and segmentation_workdir are for classifiers: a U-Net sees slices alone"
        raise UserError(wrong, "leave them as in configs/default.py, or use another config.task")
    check_segmentation(config)


def preparation(
    config: ml_collections.ConfigDict, _workdir: Path, _segment: Segment | None, _splits: dict | None = None
) -> Preparation:
    """Slices on the network's grid. Nothing is fitted to the data."""
    return Preparation(partial(prepare_case, config=config.data))


def inputs(batch: dict) -> tuple:
    """What the model takes of a batch."""
    return (batch["image"],)


def predictor(model: nn.Module, batch_size: int) -> Predictor:
    """(variables, images (n, size, size, channel)) → probabilities (n, size, size) float32."""
    return make_predictor(model, batch_size)


def cached(_config, _variables: dict, slices: Slices, cases: list[Case], _model) -> tuple[Slices, list[Case]]:
    """As they are: no part of a U-Net is worth computing ahead."""
    return slices, cases


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
    total = sum(config[name] * value for name, value in values.items())
    rows = all_sum(jnp.sum(weight))
    return total, {name: (value * rows, rows) for name, value in {"loss": total, **values}.items()}


def validate(predict: Predictor, variables: dict, cases: list[Case]) -> tuple[float, dict]:
    """Mean volume Dice of this host's cases and all other hosts', at threshold 0.5 and without any clean-up.

    Returns:
      The score and {"volume_dice", "volume_dice_min"}.
    """
    dices = [
        _dice(case_probability(predict, variables, case, False) >= 0.5, case.scan.mask) for case in cases
    ]
    dices = parallel.gather(np.array(dices, np.float32))
    scored = dices[~np.isnan(dices)]
    if not len(scored):
        raise UserError(NO_TUMOUR, "choose other validation patients")
    return float(scored.mean()), {"volume_dice": float(scored.mean()), "volume_dice_min": float(scored.min())}


def pictures(predict: Predictor, variables: dict, cases: list[Case]) -> dict[str, np.ndarray]:
    """{patient: (1, height, width, 3) uint8} of the first case: its slice with most tumour, both masks outlined."""
    drawn = {}
    for case in cases[:1]:
        index = int(case.scan.mask.sum(axis=(1, 2)).argmax())
        one = dataclasses.replace(case, images=case.images[index : index + 1])
        mask = case_probability(predict, variables, one, False)[0] >= 0.5
        drawn[case.scan.patient] = overlay_image(case.scan.image[index], case.scan.mask[index], mask)[None]
    return drawn


def choose(
    predict: Predictor, variables: dict, cases: list[Case], config: ml_collections.ConfigDict
) -> tuple[Postprocessing, float]:
    """The best of `config.eval`'s possibilities by mean volume Dice on validation, and that Dice.

    Of equals the plainest: no flips, no clean-up, the threshold nearest 0.5.
    """
    thresholds = (config.threshold,) if config.threshold else sorted(THRESHOLDS, key=lambda t: abs(t - 0.5))
    flips, components, holes = (CHOICES[config[name]] for name in ("flip_tta", "largest_component", "fill_holes"))
    choices = itertools.product(flips, components, holes, thresholds)
    options = [Postprocessing(*choice, finer=tuple(config.finer)) for choice in choices]
    table = []
    for case in cases:
        probability = {flip: case_probability(predict, variables, case, flip, config.finer) for flip in flips}
        head = volume.foreground(case.scan.image)
        table.append([_dice(option.mask(probability[option.flip_tta], head), case.scan.mask) for option in options])
    table = parallel.gather(np.array(table, np.float32).reshape(-1, len(options)))
    scored = ~np.isnan(table)
    if not scored.any():
        raise UserError(NO_TUMOUR, "choose other validation patients")
    scores = np.where(scored, table, 0).sum(axis=0) / np.maximum(scored.sum(axis=0), 1)
    best = int(np.argmax(scores))
    return options[best], float(scores[best])


def evaluate(
    predict: Predictor, variables: dict, cases: Iterable[Case], chosen: Postprocessing, _preparation: Preparation
) -> Results:
    """Score whole volumes on their own grid.

    Args:
      cases: read one at a time, so that a data set of any size fits into memory.
    """
    scores = VolumeScores()
    for case in tqdm.tqdm(cases, unit="volume", disable=None):
        scores.add(case.scan, case_mask(predict, variables, case, chosen))
    return scores.results(chosen)


class VolumeScores:
    """Scores of predicted masks, added one patient at a time."""

    def __init__(self):
        self._rows, self._slices = [], []

    def add(self, scan: volume.Volume, mask: np.ndarray) -> None:
        """Score a predicted mask, (slice, height, width) bool; UserError where the scan has no ground-truth mask."""
        if scan.mask is None:
            raise UserError(f"patient {scan.patient} has no mask to score against", "leave it out, or have it drawn")
        row = patient_columns(scan) | score_case(mask, scan.mask, scan.image)
        self._rows.append(row)
        self._slices.append(key_slice(scan.patient, row["volume_dice"], scan.image, scan.mask, mask))

    def results(self, chosen: Postprocessing | None = None) -> Results:
        """The scores of all patients added; `chosen`, where given, is stated in metrics.json."""
        table, slices = pd.DataFrame(self._rows), self._slices

        def draw(folder: Path) -> None:
            if table["volume_dice"].notna().any():
                overlay_grid(slices, folder / "overlays.png")
                case_layers(slices, folder / "cases")
                dice_distribution(table, folder / "dice.png")

        about = {} if chosen is None else {"postprocessing": dataclasses.asdict(chosen)}
        return Results(summarise(table) | about, {"cases": table}, draw)


def pool(folders: list[Path]) -> Results:
    """The same of several evaluations together, each of other patients."""
    table = read_tables(folders, "cases")

    def draw(folder: Path) -> None:
        if table["volume_dice"].notna().any():
            dice_distribution(table, folder / "dice.png")

    return Results(summarise(table), {"cases": table}, draw)


def about(_config: ml_collections.ConfigDict) -> dict:
    """What overlap.json says of the run: nothing beside the numbers."""
    return {}


def grading_run(_config, _workdir, _predict, _variables, _chosen) -> None:
    """None: a segmentation gives no grade."""


def headline(result: dict) -> str:
    """What a person wants to know first, from the body of overlap.json."""
    dice, distance = result["volume_dice"], result["hd95_px"]
    if not dice["n"]:
        return f"no volume has tumour, drawn or predicted ({result['both_empty']} volumes)"
    interval = "" if dice["ci95"] is None else " [{:.4f}, {:.4f}]".format(*dice["ci95"])
    return (
        f"volume Dice: mean {dice['mean']:.4f}{interval} (95 %), median {dice['median']:.4f}, n = {dice['n']};"
        f" both masks empty and so not counted: {result['both_empty']}\n"
        f"HD95: median {distance['median']:.1f} px, mean {distance['mean']:.1f} px,"
        f" {result['hd95_one_empty']} of them with one mask empty\n"
        f"slice Dice: {_mean(result['slice_dice_tumour'])} on slices with tumour,"
        f" {_mean(result['slice_dice_all'])} on all"
        f" (all background would score {result['all_background_slice_dice']:.4f})"
    )


def _mean(summary: dict) -> str:
    return "–" if summary["mean"] is None else f"{summary['mean']:.4f}"


def _dice(prediction: np.ndarray, truth: np.ndarray) -> float:
    tp, fp, fn, _ = overlap.confusion(prediction, truth)
    return float(overlap.dice(tp, fp, fn))
