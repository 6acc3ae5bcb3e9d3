"""Input pipeline: batches do not depend on the number of hosts and devices or on a resume; slices, masks, labels."""

import dataclasses
import itertools
import logging

import jax
import ml_collections
import numpy as np
import pytest
import tensorflow as tf

from configs import default
from lgg_jax import parallel
from lgg_jax.data import pipeline
from lgg_jax.data.cases import Case, prepare_case
from lgg_jax.data.volume import Volume
from lgg_jax.errors import UserError

BATCH, SIZE = 16, 16


def config(**fields) -> ml_collections.ConfigDict:
    result = default.get_config()
    result.train.batch_size = BATCH
    result.data.size = SIZE
    result.augment.carve_mix = 0.5
    result.update_from_flattened_dict(fields)
    return result


def plain(**fields) -> ml_collections.ConfigDict:
    """The config without augmentation: an image of a batch equals its slice."""
    off = {name: 0.0 for name in default.get_config().augment}
    off["crop_scale"] = (1.0, 1.0)
    return config(**{f"augment.{name}": value for name, value in off.items()}, **fields)


def slices(count=20, tumours=7, seed=0) -> pipeline.Slices:
    """Slices of which `tumours` show tumour; the first channel of slice i has the value i in every pixel."""
    rng = np.random.default_rng(seed)
    image = rng.normal(size=(count, SIZE, SIZE, 3))
    image[..., 0] = np.arange(count)[:, None, None]
    tumour = np.isin(np.arange(count), np.arange(tumours) * 3 % count)
    mask = rng.integers(0, 256, (count, SIZE, SIZE)) * tumour[:, None, None]
    label, clinical = np.where(np.arange(count) % 3, np.arange(count) % 2, np.nan), rng.normal(size=(count, 2))
    return pipeline.Slices(
        image.astype(np.float16), mask.astype(np.uint8), tumour, label.astype(np.float32), clinical.astype(np.float32)
    )


def batches(config, first_step=0, num_steps=6, host=0, hosts=1, data=None) -> list[dict]:
    data = slices() if data is None else data
    return list(pipeline.train_batches(data, config, first_step, num_steps, host, hosts))


def assert_equal(first: dict, second: dict):
    assert first.keys() == second.keys()
    for name in first:
        np.testing.assert_array_equal(first[name], second[name])


@pytest.mark.parametrize("hosts, devices", [(1, 8), (2, 4), (4, 2)])
def test_batches_are_the_same_on_any_hosts_and_devices(monkeypatch, hosts, devices):
    monkeypatch.setattr(jax, "local_device_count", lambda: devices)
    per_host = [batches(config(), host=host, hosts=hosts) for host in range(hosts)]
    for expected, *parts in zip(batches(config()), *per_host, strict=True):
        assert all(len(part["image"]) == BATCH // hosts for part in parts)
        assert_equal({name: np.concatenate([part[name] for part in parts]) for name in expected}, expected)
        on_devices = [parallel.shard(part) for part in parts]
        assert all(part["image"].shape == (devices, BATCH // hosts // devices, SIZE, SIZE, 3) for part in on_devices)
        # Device d of host h has the rows of part h × devices + d.
        rows = {name: np.concatenate([row for part in on_devices for row in part[name]]) for name in expected}
        assert_equal(rows, expected)


@pytest.mark.parametrize("first_step", [1, 3, 5])
@pytest.mark.parametrize("fields", [{}, {"train.start_size": 8, "train.start_share": 0.5}], ids=["one grid", "two"])
def test_a_resumed_run_sees_the_batches_of_an_uninterrupted_run(first_step, fields):
    whole = config(**fields)
    uninterrupted = batches(whole)[first_step:]
    resumed = batches(whole, first_step)
    for expected, batch in zip(uninterrupted, resumed, strict=True):
        assert_equal(batch, expected)
    for expected, batch in zip(uninterrupted, batches(whole, first_step, host=1, hosts=2), strict=True):
        assert_equal(batch, {name: rows[BATCH // 2 :] for name, rows in expected.items()})


def test_the_first_steps_see_the_same_slices_on_a_smaller_grid():
    """Two of six steps see resampled slices; the later batches equal those of a run on one grid."""
    data = slices()
    data.image[..., 1:] = np.linspace(-1, 1, SIZE)[:, None, None]  # linear, so resampling is exact
    fields = {"train.start_size": 6, "train.start_share": 1 / 3}
    both = zip(batches(plain(), data=data), batches(plain(**fields), data=data), strict=True)
    for step, (fine, batch) in enumerate(both):
        if step >= 2:
            assert_equal(batch, fine)
            continue
        assert batch["image"].shape == (BATCH, 6, 6, 3) and batch["mask"].shape == (BATCH, 6, 6)
        np.testing.assert_array_equal(batch["image"][..., 0], fine["image"][:, :6, :6, 0])
        rows = np.broadcast_to(np.linspace(-1, 1, 6)[:, None, None], (6, 6, 2))
        np.testing.assert_allclose(batch["image"][0, ..., 1:], rows, atol=1e-3)
        np.testing.assert_array_equal(batch["mask"][:, ::5, ::5], fine["mask"][:, ::15, ::15])  # corners are aligned


def test_batches_do_not_depend_on_the_length_of_the_run():
    for short, long in zip(batches(config(), num_steps=3), batches(config(), num_steps=8), strict=False):
        assert_equal(short, long)


def test_shapes_types_and_values():
    for batch in batches(config(), num_steps=2):
        assert batch["image"].shape == (BATCH, SIZE, SIZE, 3) and batch["image"].dtype == np.float32
        assert batch["mask"].shape == (BATCH, SIZE, SIZE) and batch["mask"].dtype == np.float32
        assert set(np.unique(batch["mask"])) == {0.0, 1.0}
        np.testing.assert_array_equal(batch["weight"], np.ones(BATCH, np.float32))
        assert np.isfinite(batch["image"]).all()


def test_without_augmentation_batches_hold_the_slices():
    data = slices()
    for batch in batches(plain(), data=data):
        index = batch["image"][:, 0, 0, 0].astype(int)
        np.testing.assert_array_equal(batch["image"], data.image[index].astype(np.float32))
        np.testing.assert_array_equal(batch["mask"], data.mask[index] >= 128)


def test_the_same_slice_is_augmented_differently_each_time():
    data = slices(count=1, tumours=1)
    images = np.concatenate([batch["image"] for batch in batches(config(), num_steps=2, data=data)])
    assert len({image.tobytes() for image in images}) == 2 * BATCH


def test_another_seed_gives_other_batches():
    assert any((a["image"] != b["image"]).any() for a, b in zip(batches(plain()), batches(plain(seed=1)), strict=True))
    augmented = (np.sort(batches(config(seed=seed), num_steps=1)[0]["image"].ravel()) for seed in (0, 1))
    assert not np.array_equal(*augmented)


def test_a_batch_that_cannot_be_split_over_the_hosts():
    with pytest.raises(UserError, match=r"batch_size=16 cannot be split evenly over 3 hosts"):
        pipeline.train_batches(slices(), config(), 0, 1, host=0, hosts=3)


def test_no_warning_is_logged():
    records = []
    handler = logging.Handler()
    handler.emit = records.append
    loggers = [tf.get_logger(), logging.getLogger("absl")]
    for logger in loggers:
        logger.addHandler(handler)
    try:
        batches(config(), num_steps=1)
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
    assert [record.getMessage() for record in records if record.levelno >= logging.WARNING] == []


def case(patient: str, mask, data=None) -> Case:
    image = np.random.default_rng(ord(patient)).integers(50, 200, (3, 20, 24, 3)).astype(np.uint8)
    return prepare_case(Volume(patient, image, mask, np.arange(3, dtype=np.int32), {}), data or config().data)


def test_slices_of_all_volumes():
    mask = np.zeros((3, 20, 24), bool)
    mask[1, 5:15, 5:15] = True
    data = pipeline.load_slices([case("A", mask), case("B", ~mask)])
    assert data.image.shape == (6, SIZE, SIZE, 3) and data.image.dtype == np.float16
    assert data.mask.shape == (6, SIZE, SIZE) and data.mask.dtype == np.uint8
    np.testing.assert_array_equal(data.tumour, [False, True, False, True, True, True])
    np.testing.assert_array_equal(data.mask.max(axis=(1, 2)), 255 * data.tumour)


def test_neighbouring_slices_are_of_the_same_volume():
    mask = np.zeros((3, 20, 24), bool)
    alone = pipeline.load_slices([case("A", mask), case("B", mask)]).image
    three = config(**{"data.context": 1}).data
    data = pipeline.load_slices([case("A", mask, three), case("B", mask, three)])
    before, after = [0, 0, 1, 3, 3, 4], [1, 2, 2, 4, 5, 5]
    np.testing.assert_array_equal(data.image, np.concatenate([alone[before], alone, alone[after]], axis=-1))
    batch = batches(config(), num_steps=1, data=data)[0]
    assert batch["image"].shape == (BATCH, SIZE, SIZE, 9)


@pytest.mark.parametrize("names", [
    ("t1", "flair", "t1ce"), ("t2", "flair"), ("flair", "t1ce", "t2", "t1"), ("t1", "t2"), ("flair",),
])  # fmt: skip
def test_flair_replaces_any_choice_of_the_other_channels(names):
    """Channel c has the value c. Nothing is replaced if FLAIR is missing or the only channel."""
    image = np.broadcast_to(np.arange(len(names), dtype=np.float16), (20, SIZE, SIZE, len(names)))
    data = dataclasses.replace(slices(), image=np.concatenate([image] * 3, axis=-1))  # with neighbours
    chosen = plain(**{"data.channels": names, "data.context": 1})
    chosen.augment.missing_sequence = 1.0
    shown = np.concatenate([batch["image"] for batch in batches(chosen, num_steps=12, data=data)])
    assert (shown == np.concatenate([shown[:, :1, :1, : len(names)]] * 3, axis=-1)).all()
    whole = tuple(range(len(names)))
    places = [{channel, names.index("flair") if "flair" in names else channel} for channel in whole]
    expected = set(itertools.product(*places)) - {whole} or {whole}
    assert set(map(tuple, shown[:, 0, 0, : len(names)].astype(int).tolist())) == expected


def test_label_and_clinical_values_belong_to_their_slice():
    data = slices()
    for batch in batches(plain(), num_steps=3, data=data):
        index = batch["image"][:, 0, 0, 0].astype(int)
        known = index % 3 != 0
        assert 0 < known.sum() < BATCH
        np.testing.assert_array_equal(batch["label_weight"], known)
        np.testing.assert_array_equal(batch["label"], known * (index % 2))
        np.testing.assert_array_equal(batch["clinical"], data.clinical[index])
        assert all(batch[name].dtype == np.float32 for name in ("label", "label_weight", "clinical"))


def test_features_are_not_augmented():
    data = slices()
    features = np.random.default_rng(0).normal(size=(20, 6)).astype(np.float32)
    features[:, 0] = np.arange(20)
    for batch in batches(config(), num_steps=2, data=dataclasses.replace(data, image=features)):
        index = batch["image"][:, 0].astype(int)
        np.testing.assert_array_equal(batch["image"], features[index])
        np.testing.assert_array_equal(batch["clinical"], data.clinical[index])


def test_rows_of_all_cases_with_label_and_values():
    mask = np.zeros((3, 20, 24), bool)
    mask[1, 5:15, 5:15] = True
    first, second = (dataclasses.replace(case(name, mask), clinical=np.float32([i, 5])) for i, name in enumerate("AB"))
    first = dataclasses.replace(first, labels=np.float32([0, 1, 0])).select(np.array([1, 2]))
    data = pipeline.load_slices([first, second])
    np.testing.assert_array_equal(data.label, [1, 0, np.nan, np.nan, np.nan])
    np.testing.assert_array_equal(data.clinical, [[0, 5]] * 2 + [[1, 5]] * 3)
    np.testing.assert_array_equal(data.tumour, [True, False, False, True, False])
    sample = pipeline.sample(data)
    assert sample["image"].shape == (1, SIZE, SIZE, 3) and sample["image"].dtype == np.float32
    assert sample["clinical"].shape == (1, 2)


def test_no_training_patient():
    with pytest.raises(UserError, match="no training patient has a known label"):
        pipeline.load_slices([])
