"""Classifier of tumour presence of the report that this project started from, split by slice as its scores suggest.

    python -m lgg_jax train --config=configs/seed_paper_classifier.py --workdir=W --config.data.dir=DIR \
        --config.model.pretrained=resnet50.safetensors

The report states accuracy 0.8804 and AUC 0.9543. A split by slice leaks, because slices of one patient are in several
sets. Add --config.data.split_by=patient for a split that does not leak. Results of a smaller version with 128 × 128
pixels: accuracy 0.898 and AUC 0.958 with the split by slice, 0.832 and 0.914 with the split by patient. Split by
patient, configs/presence_resnet50.py has 0.932 and 0.972.
"""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
    """A frozen ResNet50 and trained fully connected layers."""
    config = default.get_config()
    config.task = "classification"
    config.data.target = "presence"
    config.data.size = 224
    config.data.split_by = "slice"
    config.data.tumour_fraction = 0.0
    config.model.name = "classifier"
    config.model.dropout = 0.5
    config.optimizer.frozen = ("backbone",)
    config.optimizer.learning_rate = 1e-3
    config.train.batch_size = 64
    config.train.num_steps = 600
    config.train.eval_every = 50
    config.train.checkpoint_every = 200
    return config
