"""Grade from predicted masks, as for a new patient: trained on drawn outlines, scored on those a segmentation predicts.

    python -m lgg_jax train --config=configs/grade_two_stage.py --workdir=W2 --config.data.dir=DIR \
        --config.model.pretrained=resnet50.safetensors --config.data.segmentation_workdir=W

The patients are split as in the segmentation W, so that those tested here were not shown to it.
"""

from ml_collections import ConfigDict

from configs import grade_resnet50


def get_config() -> ConfigDict:
    """Set config.data.train_masks=predicted to train on predicted outlines as well."""
    return grade_resnet50.get_config()
