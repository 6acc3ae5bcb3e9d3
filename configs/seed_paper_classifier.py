"""The classifier of the report this project started from, with the split that its figures suggest: by slice.

    python -m lgg_jax train --config=configs/seed_paper_classifier.py --workdir=W --config.data.dir=DIR \
        --config.model.pretrained=resnet50.safetensors

Slices of one patient lie in all sets, so the numbers flatter: configs/presence_resnet50.py has those of new patients.
The report's: accuracy 0.8804, AUC 0.9543. Add --config.data.split_by=patient for the same network split honestly.
"""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
    """A frozen ResNet50 and its fully connected layers."""
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
