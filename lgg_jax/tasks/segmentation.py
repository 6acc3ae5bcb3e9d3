"""Segmentation: the loss of a step, the score of a validation, and what is chosen on it."""

import dataclasses
import itertools
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pandas as pd
import tqdm
from flax import linen as nn

from lgg_jax import models, parallel
from lgg_jax.data import clinical, volume
from lgg_jax.data.cases import Case, prepare_case
from lgg_jax.data.pipeline import Slices
from lgg_jax.errors import UserError
from lgg_jax.figures.masks import case_layers, dice_distribution, key_slice, overlay_grid, overlay_image
from lgg_jax.inference.predictor import Postprocessing, Predictor, case_mask, case_probability, make_predictor
from lgg_jax.metrics import overlap
from lgg_jax.metrics.segmentation import score_case, summarise
from lgg_jax.tasks.preparation import Preparation
from lgg_jax.training import losses

THRESHOLDS = (0.3, 0.4, 0.5, 0.6, 0.7)
TERMS = ("bce", "dice", "focal_tversky")
SCORE = "volume_dice"
NO_TUMOUR = "no validation patient has tumour, drawn or predicted"
CHOSEN = Postprocessing
SWITCHES = {"on": (True,), "off": (False,), "choose": (False, True)}


def check(config: ml_collections.ConfigDict) -> None:
    """UserError where the config asks for what there is not: before the training, not after it."""
    graded = config.model.name == "unet_resnet50" and config.model.grade_head
    if graded or config.model.name not in ("unet", "unet_resnet50"):
        raise UserError(
            f"config.model.name={config.model.name!r}, grade_head={config.model.grade_head} does not outline alone",
            "use 'unet' or 'unet_resnet50' without a grade_head, or another config.task",
        )
    if config.data.region != "slice" or config.data.tabular or config.data.segmentation_workdir:
        wrong = "config.data.region, tabular and segmentation_workdir are for classifiers: a U-Net sees slices alone"
        raise UserError(wrong, "leave them as in configs/default.py, or use another config.task")
    check_outline(config)


def check_outline(config: ml_collections.ConfigDict) -> None:
    """The same of `config.loss` and `config.eval`, whatever the model."""
    if not any(config.loss[name] for name in TERMS):
        raise UserError("config.loss has no term with a weight above 0", "set bce, dice or focal_tversky")
    check_switches(config.eval)
    check_grids(config)


def check_switches(config: ml_collections.ConfigDict) -> None:
    """The same of what `config.eval` leaves to be chosen."""
    for name in ("flip_tta", "largest_component", "fill_holes"):
        if config[name] not in SWITCHES:
            raise UserError(f"config.eval.{name}={config[name]!r} is not known", "use 'on', 'off' or 'choose'")


def check_grids(config: ml_collections.ConfigDict) -> None:
    """The same of the grids that the network is to be shown: its own, those beside it, that of the first steps."""
    channels = len(config.data.channels) * (1 + 2 * config.data.context)
    for more in config.eval.finer:
        if not isinstance(more, int) or more < 1:
            raise UserError(f"config.eval.finer={config.eval.finer} are no pixels", "write them like (16, 32)")
    sizes = [config.data.size + more for more in (0, *config.eval.finer)]
    for size in sizes + [config.train.start_size] * (config.train.start_size != 0):
        image = jax.ShapeDtypeStruct((1, size, size, channels), jnp.float32)
        jax.eval_shape(partial(models.create_model(config.model).init, train=False), jax.random.key(0), image)


def preparation(config: ml_collections.ConfigDict, _workdir: Path, _splits: dict | None = None) -> Preparation:
    """Slices on the network's grid; nothing of it is fitted to the data."""
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
    flips, components, holes = (SWITCHES[config[name]] for name in ("flip_tta", "largest_component", "fill_holes"))
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
    predict: Predictor, variables: dict, cases: Iterable[Case], chosen: Postprocessing,
    _preparation: Preparation,
) -> tuple[dict, dict[str, pd.DataFrame], Callable[[Path], None]]:
    """Scores whole volumes on their own grid.

    Args:
      cases: read one at a time, so that a data set of any size fits.

    Returns:
      The body of overlap.json, {"cases": the table of cases.csv, a row a patient}, and a function that draws the
      figures into a folder.
    """
    outlined = ((case.scan, case_mask(predict, variables, case, chosen)) for case in cases)
    metrics, tables, draw = scored(outlined)
    return metrics | {"postprocessing": dataclasses.asdict(chosen)}, tables, draw


def scored(
    outlined: Iterable[tuple[volume.Volume, np.ndarray]],
) -> tuple[dict, dict[str, pd.DataFrame], Callable[[Path], None]]:
    """What `evaluate` returns, of scans and their predicted masks, (slice, height, width) bool, whoever made them."""
    rows, slices = [], []
    for scan, mask in tqdm.tqdm(outlined, unit="volume", disable=None):
        if scan.mask is None:
            raise UserError(f"patient {scan.patient} has no mask to score against", "leave it out, or have it drawn")
        rows.append(patient_columns(scan) | score_case(mask, scan.mask, scan.image))
        slices.append(key_slice(scan.patient, rows[-1]["volume_dice"], scan.image, scan.mask, mask))
    table = pd.DataFrame(rows)

    def draw(folder: Path) -> None:
        if table["volume_dice"].notna().any():
            overlay_grid(slices, folder / "overlays.png")
            case_layers(slices, folder / "cases")
            dice_distribution(table, folder / "dice.png")

    return summarise(table), {"cases": table}, draw


def pool(folders: list[Path]) -> tuple[dict, dict[str, pd.DataFrame], Callable[[Path], None]]:
    """The same of several evaluations together, each of other patients."""
    table = read_tables(folders, "cases")

    def draw(folder: Path) -> None:
        if table["volume_dice"].notna().any():
            dice_distribution(table, folder / "dice.png")

    return summarise(table), {"cases": table}, draw


def read_tables(folders: list[Path], name: str) -> pd.DataFrame:
    """The rows of <name>.csv in all folders; a patient's name stays a name, also where it is a number."""
    tables = [pd.read_csv(folder / f"{name}.csv", dtype={"patient": str}) for folder in folders]
    return pd.concat(tables, ignore_index=True)


def about(_config: ml_collections.ConfigDict) -> dict:
    """What overlap.json says of the run: nothing beside the numbers."""
    return {}


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


def patient_columns(scan: volume.Volume) -> dict:
    """The first columns of cases.csv: who the patient is."""
    grade = scan.clinical.get("grade")
    return {
        "patient": scan.patient,
        "institution": clinical.institution(scan.patient),
        "grade": None if grade is None else int(grade),
    }


def _mean(summary: dict) -> str:
    return "–" if summary["mean"] is None else f"{summary['mean']:.4f}"


def _dice(prediction: np.ndarray, truth: np.ndarray) -> float:
    tp, fp, fn, _ = overlap.confusion(prediction, truth)
    return float(overlap.dice(tp, fp, fn))
