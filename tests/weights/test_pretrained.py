"""File of converted weights: writing and reading, refused files, and the input that the weights expect."""

import dataclasses
import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from lgg_jax.errors import UserError
from lgg_jax.weights.names import LAYOUTS
from lgg_jax.weights.pretrained import FORMAT, Pretrained, from_zscore, read_pretrained, write_pretrained

IMAGENET_MEAN, IMAGENET_STD = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
CAFFE, TORCH = LAYOUTS[0].expects, LAYOUTS[2].expects


def pretrained(expects=CAFFE) -> Pretrained:
    kernel = np.arange(24, dtype=np.float32).reshape(2, 3, 4).transpose(2, 0, 1)  # not contiguous, like those of torch
    variables = {"params": {"conv": {"kernel": kernel}}, "batch_stats": {"norm": {"mean": np.float32([1, 2])}}}
    return Pretrained(variables, True, 1.001e-5, **expects, source="source.h5", sha256="ab" * 32)


@pytest.fixture
def path(tmp_path):
    write_pretrained(tmp_path / "new" / "weights.safetensors", pretrained())
    return tmp_path / "new" / "weights.safetensors"


def test_written_weights_are_read_back(path):
    before, after = pretrained(), read_pretrained(path)
    jax.tree.map(np.testing.assert_array_equal, before.variables, after.variables)
    assert dataclasses.replace(after, variables=None).__dict__ == dataclasses.replace(before, variables=None).__dict__
    assert not after.include_top
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_failed_write_keeps_the_previous_file(path, monkeypatch):
    before = path.read_bytes()
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("No space left on device")))
    with pytest.raises(OSError, match="No space"):
        write_pretrained(path, pretrained(TORCH))
    assert path.read_bytes() == before and [file.name for file in path.parent.iterdir()] == [path.name]


def test_reading_imports_no_other_framework(path):
    code = f"""if True:
        import sys
        from lgg_jax.weights.pretrained import read_pretrained
        read_pretrained({str(path)!r})
        assert not {{"tensorflow", "keras", "torch", "h5py"}} & set(sys.modules)"""
    subprocess.run([sys.executable, "-c", code], check=True)


def change_metadata(path, **changes):
    file = safetensors.safe_open(path, framework="numpy")
    tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    metadata = {key: json.dumps(changes.get(key, json.loads(value))) for key, value in file.metadata().items()}
    safetensors.numpy.save_file(tensors, path, metadata)


@pytest.mark.parametrize(
    "damage, message",
    [
        (lambda path: path.unlink(), "cannot read .*weights.safetensors"),
        (lambda path: (path.unlink(), path.mkdir()), "cannot read .*weights.safetensors"),
        (lambda path: path.write_bytes(path.read_bytes()[:-10]), "cannot read .*weights.safetensors"),
        (lambda path: path.write_bytes(b""), "cannot read .*weights.safetensors"),
        (lambda path: path.write_text("no weights " * 20), "cannot read .*weights.safetensors"),
        (lambda path: safetensors.numpy.save_file({"a": np.zeros(2)}, path), "is not a file of converted weights"),
        (lambda path: safetensors.numpy.save_file({"a": np.zeros(2)}, path, {"format": "pt"}), "is not a file of con"),
        (lambda path: change_metadata(path, format=FORMAT + "1"), "is not a file of converted weights"),
        (lambda path: change_metadata(path, architecture="resnet18"), "holds a resnet18, not a resnet50"),
    ],
)
def test_refused_files(path, damage, message):
    damage(path)
    with pytest.raises(UserError, match=message) as caught:
        read_pretrained(path)
    assert "config.model.pretrained" in str(caught.value) and "\n" not in str(caught.value)


def to_network(photo: np.ndarray, pretrained: Pretrained) -> np.ndarray:
    """Normalise (…, 3) float32 RGB in 0 … 1 as the network of the converted weights was trained."""
    photo = photo[..., ::-1] if pretrained.channel_order == "BGR" else photo
    return (photo * np.float32(pretrained.scale) - np.float32(pretrained.mean)) / np.float32(pretrained.std)


def test_normalisation_of_a_photo_for_keras_and_torchvision():
    orange = np.float32([[[1.0, 0.5, 0.0]]])
    expected = [[[0 - 103.939, 127.5 - 116.779, 255 - 123.68]]]
    np.testing.assert_allclose(to_network(orange, pretrained(CAFFE)), expected, rtol=1e-5)
    expected = [[[(1 - 0.485) / 0.229, (0.5 - 0.456) / 0.224, (0 - 0.406) / 0.225]]]
    np.testing.assert_allclose(to_network(orange, pretrained(TORCH)), expected, rtol=1e-5)


@pytest.mark.parametrize("expects", [CAFFE, TORCH])
def test_zscores_are_scaled_like_photos_with_the_mean_and_deviation_of_imagenet(expects):
    z = np.random.default_rng(0).normal(size=(2, 4, 4, 3)).astype(np.float32)
    scaled = from_zscore(z, pretrained(expects))
    photos = to_network(z * IMAGENET_STD + IMAGENET_MEAN, pretrained(expects))
    assert scaled.dtype == photos.dtype == np.float32
    # The mean that Keras subtracts differs from that of ImageNet by up to half a grey level.
    np.testing.assert_allclose(scaled, photos, atol=0.51 if expects is CAFFE else 1e-5)
    if expects is TORCH:
        np.testing.assert_array_equal(scaled, z)


def test_the_same_in_a_compiled_function():
    x = np.random.default_rng(0).random((1, 2, 2, 3), np.float32)
    compiled = jax.jit(lambda x: from_zscore(x, pretrained()))(x)
    assert isinstance(compiled, jax.Array) and isinstance(from_zscore(jnp.asarray(x), pretrained()), jax.Array)
    np.testing.assert_allclose(compiled, from_zscore(x, pretrained()), rtol=1e-5, atol=1e-4)
