"""The first phase of the report this project started from: BCE + Dice, Adam 1e-4, its augmentations.

    python -m lgg_jax train --config=configs/seed_paper.py --workdir=W --config.data.dir=DIR

The report trained on a laptop's CPU for 13 hours and reached Dice 0.0711 before and 0.3854 after the second phase
(configs/seed_paper_finetune.py), on a split that it does not state; here patients are split.
"""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
    """Whole 256² slices, every one as often as any other; rotation, both flips, random crop, light, elastic."""
    config = default.get_config()
    config.data.crop = False
    config.data.tumour_fraction = 0.0
    config.augment.flip_vertical = 0.5
    config.augment.crop_scale = (0.8, 1.0)
    config.augment.missing_sequence = 0.0
    config.train.epochs = 10.0
    return config
