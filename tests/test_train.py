"""Loading of the training and validation data."""

import numpy as np
import pytest

from configs import default
from lgg_jax import train
from lgg_jax.data import dataset
from lgg_jax.data.cases import prepare_case
from lgg_jax.data.volume import Volume
from lgg_jax.errors import UserError

SPLITS = {"format": 1, "by": "patient", "train": ["a", "b"], "validation": ["c"], "test": []}


def loaded(monkeypatch, without_mask=(), without_label=()):
    """Return `load_data` of three patients with 2, 3 and 4 slices."""
    mask = np.zeros((4, 32, 32), bool)
    mask[0, 8:16, 8:16] = True
    scans = [
        Volume(name, np.full((count, 32, 32, 3), 9, np.uint8), None if name in without_mask else mask[:count],
               np.arange(count), {})
        for name, count in zip("abc", (2, 3, 4), strict=True)
    ]  # fmt: skip
    monkeypatch.setattr(dataset, "load_volumes", lambda _config, patients: [s for s in scans if s.patient in patients])
    config = default.get_config()
    config.data.size, config.data.crop = 32, False

    def prepare(scan):
        return None if scan.patient in without_label else prepare_case(scan, config.data)

    return train.load_data(config, SPLITS, prepare)


def test_training_slices_and_validation_volumes(monkeypatch, capsys):
    slices, cases = loaded(monkeypatch)
    assert slices.image.shape == (5, 32, 32, 3) and list(slices.tumour) == [True, False, True, False, False]
    assert [(case.scan.patient, len(case.images)) for case in cases] == [("c", 4)]
    slices, _ = loaded(monkeypatch, without_label=("a",))
    assert len(slices.image) == 3
    assert capsys.readouterr().out == "skipped because their label is unknown: 1 patients (a)\n"


def test_training_images_do_not_stay_in_memory(monkeypatch):
    """No view refers to the image either."""
    training = []
    monkeypatch.setattr(train.pipeline, "load_slices", training.extend)
    _, cases = loaded(monkeypatch)
    assert [(case.scan.image.size, case.scan.image.base) for case in training] == [(0, None)] * 2
    assert cases[0].scan.image.size and cases[0].data is not None


@pytest.mark.parametrize("patient", ["b", "c"])
def test_a_patient_without_a_mask(monkeypatch, patient):
    """A missing mask of a validation patient is found at once, not at the first validation."""
    with pytest.raises(UserError, match=f"patient {patient} has no mask; train and validate on patients with masks"):
        loaded(monkeypatch, without_mask=(patient,))


def test_no_training_patient_with_a_label(monkeypatch):
    with pytest.raises(UserError, match="no training patient has a known label"):
        loaded(monkeypatch, without_label=("a", "b"))
