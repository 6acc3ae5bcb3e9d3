"""Weight files of other libraries: damaged or unsupported files are reported in one line that names the file."""

import json

import h5py
import numpy as np
import pytest
import safetensors.numpy

from lgg_jax.errors import UserError
from lgg_jax.weights import files
from lgg_jax.weights.files import find_source, read_foreign, sha256


def tfjs(folder, sizes=(8, 8, 4), **changes):
    """Write a model with one weight, (5,) float32 0 … 4, in shards of `sizes` bytes."""
    weight = {"name": "a/kernel", "shape": [5], "dtype": "float32", **changes.pop("weight", {})}
    paths = [f"shard{index}.bin" for index in range(len(sizes))]
    manifest = [{"paths": paths, "weights": [weight]}]
    topology = {"model_config": {"config": {"layers": [{"config": {"name": "a", "epsilon": 0.1}}]}}}
    model = {"modelTopology": topology, "weightsManifest": manifest, **changes}
    folder.mkdir()
    (folder / "model.json").write_text(json.dumps(model))
    data = np.arange(5, dtype="<f4").tobytes()
    for path, size in zip(paths, sizes, strict=True):
        (folder / path).write_bytes(data[:size])
        data = data[size:]
    return folder / "model.json"


def test_tfjs_model_of_several_shards(tmp_path):
    path = tfjs(tmp_path / "model")
    read = read_foreign(path)
    np.testing.assert_array_equal(read.tensors["a/kernel"], np.arange(5, dtype=np.float32))
    assert read.library == "keras" and read.layers["a"]["epsilon"] == 0.1
    before = sha256(path)
    (tmp_path / "model" / "shard2.bin").write_bytes(b"1234")
    assert sha256(path) != before


@pytest.mark.parametrize(
    "sizes, changes, message",
    [
        ((8, 7, 4), {}, r"the shards have 19 bytes, but the weights need 20 \(see shard1.bin"),
        ((8, 8, 0), {}, r"the shards have 16 bytes, but the weights need 20 \(see shard2.bin"),
        ((20,), {"weight": {"shape": [6]}}, r"the shards have 20 bytes, but the weights need 24 \(see shard0.bin"),
        ((20,), {"weight": {"shape": [-5]}}, "cannot read|the shards have"),
        ((20,), {"weight": {"dtype": "uint8"}}, "a/kernel is not in float32"),
        ((20,), {"weight": {"quantization": {"dtype": "float16"}}}, "a/kernel is not in float32"),
        ((20,), {"format": "graph-model"}, "is a TF.js graph model"),
        ((20,), {"weightsManifest": 3}, "cannot read .*model.json"),
        ((20,), {"weightsManifest": [{"paths": ["no.bin"], "weights": []}]}, "cannot read .*no.bin"),
        ((20,), {"modelTopology": {}}, "cannot read .*model.json"),
    ],
)
def test_damaged_tfjs_models(tmp_path, sizes, changes, message):
    path = tfjs(tmp_path / "model", sizes, **changes)
    with pytest.raises(UserError, match=message) as caught:
        read_foreign(path)
    assert "\n" not in str(caught.value)


def test_a_folder_as_source_means_its_model_json(tmp_path):
    path = tfjs(tmp_path / "model")
    assert find_source(str(path.parent)) == path
    path.unlink()
    with pytest.raises(UserError, match=r"no such file: .*model.json"):
        find_source(str(path.parent))


def test_the_digest_of_a_model_with_a_missing_shard_is_an_error(tmp_path):
    path = tfjs(tmp_path / "model")
    (path.parent / "shard1.bin").unlink()
    with pytest.raises(UserError, match=r"cannot read .*shard1.bin"):
        sha256(path)


@pytest.mark.parametrize("name", ["weights.h5", "weights.safetensors", "model.json"])
def test_damaged_files(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(b"\x89HDF\r\n\x1a\nnot really" * 4)
    with pytest.raises(UserError, match=f"cannot read .*{name}.*; download it again"):
        read_foreign(path)


def test_unsupported_and_missing_files(tmp_path):
    (tmp_path / "weights.caffemodel").touch()
    expected = r"weights.caffemodel has a suffix that is not supported .*; pass one of .h5, .safetensors, .pth, .json"
    with pytest.raises(UserError, match=expected):
        find_source(str(tmp_path / "weights.caffemodel"))
    with pytest.raises(UserError, match=r"no such file: .*nothing.h5"):
        find_source(str(tmp_path / "nothing.h5"))


def test_a_small_file_with_a_huge_tensor(tmp_path):
    with h5py.File(tmp_path / "bomb.h5", "w") as file:
        group = file.create_group("a")
        group.create_dataset("kernel", (2**20, 2**20), "f4", chunks=(1024, 1024))
        group.attrs["weight_names"] = ["kernel"]
    with pytest.raises(UserError, match=r"bomb.h5 holds more than a gigabyte"):
        read_foreign(tmp_path / "bomb.h5")


def test_torch_kernels_are_transposed_to_the_layout_of_linen(tmp_path):
    state = {
        "conv.weight": np.arange(24, dtype=np.float16).reshape(4, 3, 2, 1),
        "fc.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
        "bn.running_var": np.ones(3, np.float32),
        "bn.num_batches_tracked": np.zeros(1, np.int64),
    }
    safetensors.numpy.save_file(state, tmp_path / "weights.safetensors")
    read = read_foreign(tmp_path / "weights.safetensors").tensors
    assert {name: tensor.shape for name, tensor in read.items()} == {
        "conv.weight": (2, 1, 3, 4), "fc.weight": (3, 2), "bn.running_var": (3,),
    }  # fmt: skip
    assert read["conv.weight"][1, 0, 2, 3] == state["conv.weight"][3, 2, 1, 0]
    assert all(tensor.dtype == np.float32 for tensor in read.values())


def test_pth_without_torch(tmp_path, monkeypatch):
    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(files.importlib, "import_module", missing)
    with pytest.raises(UserError, match=r"weights.pth needs torch, which is not installed; pass a .safetensors"):
        read_foreign(tmp_path / "weights.pth")


def test_a_pth_without_a_state_dict(tmp_path):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    path = tmp_path / "weights.pth"
    torch.save({"epoch": 3, "state_dict": {}}, path)
    with pytest.raises(UserError, match=r"holds more than tensors; save only the state_dict\(\)"):
        read_foreign(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"cannot read .*weights.pth as weights only"):
        read_foreign(path)


def test_a_pth_that_would_run_code_is_refused(tmp_path):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    torch.save(Opens(tmp_path / "opened"), tmp_path / "weights.pth")
    with pytest.raises(UserError, match="as weights only"):
        read_foreign(tmp_path / "weights.pth")
    assert not (tmp_path / "opened").exists()


class Opens:
    """An object that creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")
