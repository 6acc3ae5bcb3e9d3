"""Deep residual U-Net (Zhang et al. 2018) with the settings of configs/unet_cpu.py, for two CPU cores.

    python -m lgg_jax train --config=configs/residual_unet.py --workdir=W --config.data.dir=DIR
"""

from ml_collections import ConfigDict

from configs import unet_cpu


def get_config() -> ConfigDict:
    """configs/unet_cpu.py with pre-activation residual units."""
    config = unet_cpu.get_config()
    config.model.name = "residual_unet"
    return config
