"""Fine-tuning after configs/grade_resnet50.py: the backbone is trained too, with a tenth of the learning rate.

    python -m lgg_jax train --config=configs/grade_resnet50_finetune.py --workdir=W2 --config.data.dir=DIR \
        --config.init_from=W

W is the workdir of the first training. Its split is kept.
"""

from ml_collections import ConfigDict

from configs import grade_resnet50


def get_config() -> ConfigDict:
    """The ImageNet statistics of BatchNorm are kept: slices of one patient are too similar to estimate new ones."""
    config = grade_resnet50.get_config()
    config.model.fixed_norm = ("backbone",)
    config.optimizer.frozen = ()
    config.optimizer.learning_rate = 1e-4
    config.optimizer.backbone_rate = 0.1
    config.optimizer.clip_norm = 1.0
    config.train.batch_size = 16
    config.train.num_steps = 300
    config.train.eval_every = 50
    return config
