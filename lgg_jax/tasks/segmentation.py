"""Segmentation: loss, validation score, choice of the post-processing, and evaluation of whole volumes."""

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
CHOSEN = Postprocessing
_NO_TUMOUR = "no validation patient has tumour in its ground-truth or predicted mask"


def check(config: ml_collections.ConfigDict) -> None:
    """Raise UserError if the config requests something that the task does not support."""
    check_outputs(config, OUTPUTS, "does not give a mask alone")
    if config.data.region != "slice" or config.data.tabular or config.data.segmentation_workdir:
        wrong = "config.data.region, tabular and segmentation_workdir are for classifiers: a U-Net takes slices alone"
        raise UserError(wrong, "leave them as in configs/default.py, or use another config.task")
    check_segmentation(config)


def preparation(
    config: ml_collections.ConfigDict, _workdir: Path, _segment: Segment | None, _splits: dict | None = None
) -> Preparation:
    """The preparation of slices on the network grid. Nothing is fitted to the data."""
    return Preparation(partial(prepare_case, config=config.data))


def inputs(batch: dict) -> tuple:
    """The inputs of the model from a batch: the images."""
    return (batch["image"],)


def predictor(model: nn.Module, batch_size: int) -> Predictor:
    """A function (variables, images (n, size, size, channel)) → probabilities (n, size, size) float32."""
    return make_predictor(model, batch_size)


def mask_predictor(predict: Predictor) -> Predictor:
    """Return the predictor itself: it returns probabilities alone."""
    return predict


def cached(_config, _variables: dict, slices: Slices, cases: list[Case], _model) -> tuple[Slices, list[Case]]:
    """The arguments unchanged: no part of a U-Net is computed in advance."""
    return slices, cases


def loss(config: ml_collections.ConfigDict, logits: jax.Array, batch: dict, all_sum: losses.AllSum):
    """The weighted sum of the losses in `config.loss`.

    Args:
      config: `config.loss`.
      logits: (batch, height, width) float32.
      batch: with mask (batch, height, width) and weight (batch,).
      all_sum: sums a value over all devices.

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
    """The mean volume Dice over the cases of all hosts, at threshold 0.5 and without post-processing.

    Returns:
      The score and {"volume_dice", "volume_dice_min"}.
    """
    dices = [_dice(case_probability(predict, variables, case, False) >= 0.5, case.scan.mask) for case in cases]
    dices = parallel.gather(np.array(dices, np.float32))
    scored = dices[~np.isnan(dices)]
    if not len(scored):
        raise UserError(_NO_TUMOUR, "choose other validation patients")
    return float(scored.mean()), {"volume_dice": float(scored.mean()), "volume_dice_min": float(scored.min())}


def pictures(predict: Predictor, variables: dict, cases: list[Case]) -> dict[str, np.ndarray]:
    """The slice of the first case with the largest tumour area, with the contours of both masks.

    Returns:
      {patient: (1, height, width, 3) uint8}.
    """
    overlays = {}
    for case in cases[:1]:
        index = int(case.scan.mask.sum(axis=(1, 2)).argmax())
        one = dataclasses.replace(case, images=case.images[index : index + 1])
        mask = case_probability(predict, variables, one, False)[0] >= 0.5
        overlays[case.scan.patient] = overlay_image(case.scan.image[index], case.scan.mask[index], mask)[None]
    return overlays


def choose(
    predict: Predictor, variables: dict, cases: list[Case], config: ml_collections.ConfigDict
) -> tuple[Postprocessing, float]:
    """Choose the options with the highest mean volume Dice on the validation set.

    Of options with equal Dice, the simplest is chosen: without test-time augmentation, without post-processing, and
    with the threshold nearest to 0.5.

    Args:
      config: `config.eval`, which restricts the options.

    Returns:
      The chosen options and their mean volume Dice.
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
        raise UserError(_NO_TUMOUR, "choose other validation patients")
    scores = np.where(scored, table, 0).sum(axis=0) / np.maximum(scored.sum(axis=0), 1)
    best = int(np.argmax(scores))
    return options[best], float(scores[best])


def evaluate(
    predict: Predictor, variables: dict, cases: Iterable[Case], chosen: Postprocessing, _preparation: Preparation
) -> Results:
    """Score whole volumes on their own grid. Cases are read one at a time, so that any data set fits into memory."""
    scores = VolumeScores()
    for case in tqdm.tqdm(cases, unit="volume", disable=None):
        scores.add(case.scan, case_mask(predict, variables, case, chosen))
    return scores.results(chosen)


class VolumeScores:
    """Scores of predicted masks, added one patient at a time."""

    def __init__(self):
        self._rows, self._slices = [], []

    def add(self, scan: volume.Volume, mask: np.ndarray) -> None:
        """Score a predicted mask, (slice, height, width) bool.

        Raises:
          UserError: the scan has no ground-truth mask.
        """
        if scan.mask is None:
            raise UserError(f"patient {scan.patient} has no ground-truth mask", "exclude it, or add its mask")
        row = patient_columns(scan) | score_case(mask, scan.mask, scan.image)
        self._rows.append(row)
        self._slices.append(key_slice(scan.patient, row["volume_dice"], scan.image, scan.mask, mask))

    def results(self, chosen: Postprocessing | None = None) -> Results:
        """The scores of all added patients; `chosen` is stored in metrics.json unless it is None."""
        table, slices = pd.DataFrame(self._rows), self._slices

        def draw(folder: Path) -> None:
            if table["volume_dice"].notna().any():
                overlay_grid(slices, folder / "overlays.png")
                case_layers(slices, folder / "cases")
                dice_distribution(table, folder / "dice.png")

        about = {} if chosen is None else {"postprocessing": dataclasses.asdict(chosen)}
        return Results(summarise(table) | about, {"cases": table}, draw)


def pool(folders: list[Path]) -> Results:
    """Score several evaluations of different patients together."""
    table = read_tables(folders, "cases")

    def draw(folder: Path) -> None:
        if table["volume_dice"].notna().any():
            dice_distribution(table, folder / "dice.png")

    return Results(summarise(table), {"cases": table}, draw)


def about(_config: ml_collections.ConfigDict) -> dict:
    """No entries: metrics.json contains only the scores."""
    return {}


def grading_run(_config, _workdir, _predict, _variables, _chosen) -> None:
    """None: a segmentation does not predict the grade."""


def headline(result: dict) -> str:
    """A summary of volume Dice, HD95 and slice Dice, from the body of metrics.json."""
    dice, distance = result["volume_dice"], result["hd95_px"]
    if not dice["n"]:
        return f"no volume has tumour in its ground-truth or predicted mask ({result['both_empty']} volumes)"
    interval = "" if dice["ci95"] is None else " (95 % CI {:.4f} to {:.4f})".format(*dice["ci95"])
    return (
        f"volume Dice: mean {dice['mean']:.4f}{interval}, median {dice['median']:.4f}, n = {dice['n']};"
        f" excluded because both masks are empty: {result['both_empty']}\n"
        f"HD95: median {distance['median']:.1f} px, mean {distance['mean']:.1f} px,"
        f" including {result['hd95_one_empty']} volumes with one empty mask\n"
        f"slice Dice: {_mean(result['slice_dice_tumour'])} on slices with tumour,"
        f" {_mean(result['slice_dice_all'])} on all slices"
        f" (empty masks would score {result['all_background_slice_dice']:.4f})"
    )


def _mean(summary: dict) -> str:
    return "–" if summary["mean"] is None else f"{summary['mean']:.4f}"


def _dice(prediction: np.ndarray, ground_truth: np.ndarray) -> float:
    tp, fp, fn, _ = overlap.confusion(prediction, ground_truth)
    return float(overlap.dice(tp, fp, fn))
