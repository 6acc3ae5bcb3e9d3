"""The second phase of the report this project started from, on the weights of the first.

    python -m lgg_jax train --config=configs/seed_paper_finetune.py --config.init_from=W --workdir=W2 \
        --config.data.dir=DIR

The split is the first phase's (W/splits.json): a patient it trained on never becomes a test patient.
"""

from ml_collections import ConfigDict

from configs import seed_paper


def get_config() -> ConfigDict:
    """A tenth of the learning rate, falling; tumour slices half of the time; missed tumour weighs more."""
    config = seed_paper.get_config()
    config.data.tumour_fraction = 0.5
    config.loss.focal_tversky = 1.0
    config.optimizer.learning_rate = 1e-5
    config.optimizer.schedule = "cosine"
    return config
