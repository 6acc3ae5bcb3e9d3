"""One network for segmentation and grade: a U-Net with a ResNet50 encoder and a grade head on its deepest features.

    python -m lgg_jax train --config=configs/multitask.py --workdir=W --config.data.dir=DIR \
        --config.model.pretrained=resnet50.safetensors
"""

from ml_collections import ConfigDict

from configs import unet_resnet50


def get_config() -> ConfigDict:
    """The sum of both losses; the grade loss counts only slices with tumour of patients with a known grade."""
    config = unet_resnet50.get_config()
    config.task = "joint"
    config.data.target = "grade"
    config.augment.carve_mix = 0.0
    config.model.grade_head = True
    config.model.hidden = (64,)
    config.model.dropout = 0.2
    config.loss.label = 0.2
    return config
