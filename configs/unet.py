"""U-Net of the size of Buda et al. 2019 (32 features, 256 × 256 pixels), for a GPU or a TPU.

    python -m lgg_jax train --config=configs/unet.py --workdir=W --config.data.dir=DIR

On a TPU or a recent GPU, add --config.model.dtype=bfloat16. For a CPU, use configs/unet_cpu.py.
"""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
    """100 epochs of AdamW with warm-up, cosine decay and EMA of the weights."""
    config = default.get_config()
    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = 1e-3
    config.optimizer.weight_decay = 1e-2
    config.optimizer.schedule = "cosine"
    config.optimizer.warmup_steps = 500
    config.optimizer.clip_norm = 1.0
    config.optimizer.ema_decay = 0.999
    config.train.epochs = 100.0
    return config
