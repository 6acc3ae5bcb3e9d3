"""Protocol of brain-segmentation-pytorch (Buda et al. 2019): soft Dice loss, Adam 1e-4, batch size 16, 100 epochs.

    python -m lgg_jax train --config=configs/buda.py --workdir=W --config.data.dir=DIR

The validation set is the same ten patients as there (seed 42 over the sorted 110 folders), or those of them that the
data has. All other patients are used for training. There is no test set: evaluate with --split=validation. This score
is optimistic, because the best step is chosen on the same patients. The published Dice of 0.82 comes from another
protocol: it is the mean over 22 folds.
"""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
    """Scale ±5 %, rotation ±15° and left-right flips with probability 0.5; every slice is sampled equally often."""
    config = default.get_config()
    config.data.crop = False
    config.data.tumour_fraction = 0.0
    config.data.validation_patients = (
        "TCGA_CS_4944", "TCGA_CS_6667", "TCGA_CS_6668", "TCGA_DU_5851", "TCGA_DU_6404",
        "TCGA_DU_6408", "TCGA_DU_7014", "TCGA_HT_7616", "TCGA_HT_7692", "TCGA_HT_7879",
    )  # fmt: skip
    config.augment.crop_scale = (0.95, 1.05)
    config.augment.brightness = config.augment.contrast = 0.0
    config.augment.elastic = config.augment.missing_sequence = 0.0
    config.loss.bce = 0.0
    config.train.epochs = 100.0
    config.eval.flip_tta = "off"
    config.eval.largest_component = "on"
    config.eval.fill_holes = "off"
    config.eval.threshold = 0.5
    return config
