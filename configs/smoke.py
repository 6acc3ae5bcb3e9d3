"""Smoke test: a training that takes seconds, on phantoms or on any other data.

    python -m lgg_jax synthesize --output=phantoms --patients=8
    python -m lgg_jax train --config=configs/smoke.py --workdir=W --config.data.dir=phantoms
"""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
    """40 steps of a U-Net with 4 features on 32 × 32 pixels."""
    config = default.get_config()
    config.data.size = 32
    config.data.test_fraction = 0.25
    config.data.validation_fraction = 0.25
    config.model.features = 4
    config.optimizer.learning_rate = 1e-2
    config.train.batch_size = 8
    config.train.num_steps = 40
    config.train.log_every = 10
    config.train.eval_every = 20
    config.train.checkpoint_every = 10
    config.eval.batch_size = 8
    return config
