"""Grade from predicted masks, as for a new patient: trained and scored on the outlines that a segmentation predicts.

    python -m lgg_jax train --config=configs/grade_two_stage.py --workdir=W2 --config.data.dir=DIR \
        --config.model.pretrained=resnet50.safetensors --config.data.segmentation_workdir=W

The patients are split as in the segmentation W, so that those tested here were not shown to it.
"""

from ml_collections import ConfigDict

from configs import grade_resnet50


def get_config() -> ConfigDict:
    """Set config.data.train_masks=true to train on drawn outlines; it is scored on predicted ones all the same."""
    config = grade_resnet50.get_config()
    config.data.train_masks = "predicted"
    return config
