"""Classifier of the grade on predicted masks, as for a new patient, in training and in evaluation.

    python -m lgg_jax train --config=configs/grade_two_stage.py --workdir=W2 --config.data.dir=DIR \
        --config.model.pretrained=resnet50.safetensors --config.data.segmentation_workdir=W

W is the workdir of a segmentation run, which predicts the masks. Its split is used here too, so that the test patients
are held out from both trainings.
"""

from ml_collections import ConfigDict

from configs import grade_resnet50


def get_config() -> ConfigDict:
    """configs/grade_resnet50.py on predicted masks; with data.train_masks="true", training uses ground-truth masks."""
    config = grade_resnet50.get_config()
    config.data.train_masks = "predicted"
    return config
