"""Finished runs that outline, alone or beside a grade, applied to new scans; several of them are an ensemble.

    segmenter = load_segmenter(["runs/cpu"])
    probability = segmenter.probability(volume)       # (slice, height, width), on the scan's own grid
    mask = segmenter.mask(probability, volume)
"""

import dataclasses
from pathlib import Path

import jax
import ml_collections
import numpy as np

from lgg_jax import models
from lgg_jax import workdir as workdir_lib
from lgg_jax.data.cases import prepare_case
from lgg_jax.data.volume import Volume, foreground
from lgg_jax.errors import UserError
from lgg_jax.inference.predictor import Postprocessing, Predictor, case_probability, make_predictor
from lgg_jax.scans.scan import warn_without_t2
from lgg_jax.training.checkpoints import restore_variables

# What a model of each task answers → the probability of tumour.
_OUTLINES = {"segmentation": jax.nn.sigmoid, "joint": lambda logits: jax.nn.sigmoid(logits["mask"])}


@dataclasses.dataclass(frozen=True)
class Run:
    """The best weights of one run, and how it prepares a scan and makes a mask."""

    data: ml_collections.ConfigDict
    variables: dict
    predict: Predictor
    chosen: Postprocessing

    def probability(self, scan: Volume) -> np.ndarray:
        """(slice, height, width) float32."""
        warn_without_t2(scan, self.data.channels)
        case = prepare_case(scan, self.data)
        chosen = self.chosen
        return case_probability(self.predict, self.variables, case, chosen.flip_tta, chosen.finer)


@dataclasses.dataclass(frozen=True)
class Segmenter:
    """One run, or an ensemble: the mean of its probabilities, the mean of its thresholds."""

    runs: list[Run]

    def probability(self, scan: Volume) -> np.ndarray:
        """Of tumour, (slice, height, width) float32 on the scan's grid."""
        return np.mean([run.probability(scan) for run in self.runs], axis=0, dtype=np.float32)

    def mask(self, probability: np.ndarray, scan: Volume) -> np.ndarray:
        """(slice, height, width) float32, of this scan → bool; cleaned up where most of the runs chose to."""
        chosen = [run.chosen for run in self.runs]
        names = ("largest_component", "fill_holes")
        clean = {name: bool(np.mean([getattr(each, name) for each in chosen]) > 0.5) for name in names}
        threshold = float(np.mean([each.threshold for each in chosen]))
        return Postprocessing(**clean, threshold=threshold).mask(probability, foreground(scan.image))

    def segment(self, scan: Volume) -> np.ndarray:
        """The mask of a scan, (slice, height, width) bool."""
        return self.mask(self.probability(scan), scan)


def load_segmenter(workdirs: list[str]) -> Segmenter:
    """Restores the best weights of each run; UserError where one does not outline or has not ended."""
    return Segmenter([_load(Path(workdir)) for workdir in workdirs])


def _load(workdir: Path) -> Run:
    config = workdir_lib.read_config(workdir)
    if config.task not in _OUTLINES:
        raise UserError(f"{workdir} holds a run of task {config.task}", "pass the workdir of a segmentation")
    variables, _ = restore_variables(workdir)
    model = models.create_model(config.model)
    predict = make_predictor(model, config.eval.batch_size, _OUTLINES[config.task])
    return Run(config.data, variables, predict, workdir_lib.read_chosen(workdir, Postprocessing))
