"""Segmentation of the report that this project started from, first phase: BCE + Dice, Adam 1e-4, its augmentation.

    python -m lgg_jax train --config=configs/seed_paper.py --workdir=W --config.data.dir=DIR

The report trained for 13 hours on a laptop's CPU. It states a Dice of 0.0711 after this phase and of 0.3854 after the
second (configs/seed_paper_finetune.py), but not its split. Here, the split is by patient. Result of a smaller version
(96 × 96 pixels, 16 features) on the 18 test patients of seed 0: volume Dice 0.609 (95 % CI 0.484 to 0.714).
"""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
    """Whole slices of 256 × 256 pixels, all sampled equally often; rotation, flips, crop, intensity and elastic."""
    config = default.get_config()
    config.data.crop = False
    config.data.tumour_fraction = 0.0
    config.augment.flip_vertical = 0.5
    config.augment.crop_scale = (0.8, 1.0)
    config.augment.missing_sequence = 0.0
    config.train.epochs = 10.0
    return config
