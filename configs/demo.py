"""What launch/demo.sh trains: phantoms of 20 patients, about two minutes on two cores.

    python -m lgg_jax synthesize --output=phantoms --patients=20
    python -m lgg_jax train --config=configs/demo.py --workdir=W --config.data.dir=phantoms
"""

from ml_collections import ConfigDict

from configs import default, unet_cpu


def get_config() -> ConfigDict:
    """The CPU preset with 8 features on 64 × 64 pixels."""
    config = unet_cpu.get_config()
    config.eval = default.get_config().eval  # what suits patients need not suit phantoms, whose tumours have pieces
    config.data.size = 64
    config.train.start_size = 0
    config.model.features = 8
    config.optimizer.ema_decay = 0.98
    config.train.num_steps, config.train.minutes = 0, 2.0
    config.train.eval_every = 100
    config.train.checkpoint_every = 100
    return config
