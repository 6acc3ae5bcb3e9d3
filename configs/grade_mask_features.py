"""Grade II or III from shape, place and intensity of the tumour alone: a linear model of all mask features, in seconds.

    python -m lgg_jax train --config=configs/grade_mask_features.py --workdir=W0 --config.data.dir=DIR \
        --config.data.folds=5 --config.data.fold=0
    python -m lgg_jax evaluate --workdir=W0 --workdir=W1 --workdir=W2 --workdir=W3 --workdir=W4    # out of fold

AUC per patient 0.773 [0.661, 0.856], accuracy 0.701 (majority 0.529), out of fold on 87 patients, drawn outlines.
"""

from ml_collections import ConfigDict

from configs import default
from lgg_jax.data.mask_features import FEATURES


def get_config() -> ConfigDict:
    """No feature is picked; a short training with a strong pull towards zero takes the place of picking."""
    config = default.get_config()
    config.task = "classification"
    config.data.target = "grade"
    config.data.region = "crop"
    config.data.size = 32  # of a picture that the model does not look at
    config.data.tabular = FEATURES
    config.model.name = "linear"
    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = 1e-3
    config.optimizer.weight_decay = 1.0
    config.optimizer.schedule = "cosine"
    config.train.batch_size = 64
    config.train.num_steps = 200
    config.train.eval_every = 200
    config.train.checkpoint_every = 200
    return config
