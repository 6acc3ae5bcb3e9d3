"""Config of launch/demo.sh: training on 20 phantom patients, about two minutes on two CPU cores.

    python -m lgg_jax synthesize --output=phantoms --patients=20
    python -m lgg_jax train --config=configs/demo.py --workdir=W --config.data.dir=phantoms
"""

from ml_collections import ConfigDict

from configs import default, unet_cpu


def get_config() -> ConfigDict:
    """configs/unet_cpu.py with 8 features on 64 × 64 pixels."""
    config = unet_cpu.get_config()
    # The post-processing of unet_cpu was chosen for patients. Phantoms differ: their tumours have several components.
    config.eval = default.get_config().eval
    config.data.size = 64
    config.train.start_size = 0
    config.model.features = 8
    config.optimizer.ema_decay = 0.98
    config.train.num_steps, config.train.minutes = 0, 2.0
    config.train.eval_every = 100
    config.train.checkpoint_every = 100
    return config
