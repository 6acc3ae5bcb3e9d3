"""Test helper: the run directory of a classifier, made without training and scored by the task's own code."""

from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import expit

from configs import seed_paper_classifier
from lgg_jax import evaluate, workdir
from lgg_jax.tasks import patient_scores
from lgg_jax.tasks import preparation as grading


def presence_run(folder: Path, patients: list[str]) -> Path:
    """Write a run directory with eval/test but without logs, split by slice, three slices per patient; return it."""
    config = seed_paper_classifier.get_config()
    config.data.dir = "elsewhere"
    splits = {"format": 1, "by": "slice", "train": ["TCGA_CS_4941:1"], "validation": ["TCGA_CS_4941:2"],
              "test": [f"{patient}:{index}" for patient in patients for index in range(3)]}  # fmt: skip
    workdir.begin(folder, config, splits, 7)
    workdir.write_json(folder / "postprocess.json", {"threshold": 0.5, "patient_threshold": 0.5, "step": 7})
    rng = np.random.default_rng(0)
    tables = [
        pd.DataFrame({"patient": patient, "slice_index": range(3), "label": [0, 1, 1], "logit": rng.normal(size=3)})
        for patient in patients
    ]
    tables = [table.assign(tumour_slice=table["label"] == 1, probability=expit(table["logit"])) for table in tables]
    about = [{"patient": patient, "institution": "NA", "grade": 2, "age": 40} for patient in patients]
    chosen, preparation = patient_scores.Thresholds(), grading.Preparation(None)
    results = patient_scores.scored(tables, about, chosen, preparation)
    header = {"task": "classification", "step": 7, "dataset": "elsewhere", "split": "test", "target": "presence"}
    evaluate.write(folder / "eval" / "test", header, results)
    return folder
