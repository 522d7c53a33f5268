"""Files and shards are opened only when all of them hold what their headers say."""

import json

import pytest
import torch
from safetensors.torch import save_file

from graphquant.quant_core.errors import StorageError
from graphquant.quant_core.storage import TensorFile, TensorFiles

TENSORS = {"a": torch.arange(4.0), "b": torch.ones(2, 3, dtype=torch.bfloat16)}


@pytest.fixture
def file(tmp_path):
    save_file(TENSORS, tmp_path / "whole.safetensors", {"kind": "test"})
    return tmp_path / "whole.safetensors"


@pytest.fixture
def index(tmp_path):
    save_file({"a": TENSORS["a"]}, tmp_path / "m-00001-of-00002.safetensors", {"kind": "first"})
    save_file({"b": TENSORS["b"]}, tmp_path / "m-00002-of-00002.safetensors", {"more": "second"})
    weight_map = {"a": "m-00001-of-00002.safetensors", "b": "m-00002-of-00002.safetensors"}
    return write_index(tmp_path, weight_map)


def write_index(folder, weight_map):
    path = folder / "m.safetensors.index.json"
    path.write_text(json.dumps({"metadata": {"total_size": 28}, "weight_map": weight_map}))
    return path


def test_a_file_of_the_safetensors_library_reads_bit_by_bit(file):
    with TensorFiles(file) as files:
        assert files.metadata == {"kind": "test"}
        for name, tensor in TENSORS.items():
            assert torch.equal(files.read(name), tensor)


def test_shards_read_as_one_file(index):
    with TensorFiles(index) as files:
        assert len(files.files) == 2
        assert files.metadata == {"kind": "first", "more": "second"}
        for name, tensor in TENSORS.items():
            assert torch.equal(files.read(name), tensor)


def test_what_is_read_outlives_the_file(file):
    with TensorFiles(file) as files:
        tensor = files.read("a")
    file.write_bytes(b"")
    assert torch.equal(tensor, TENSORS["a"])


@pytest.mark.parametrize("length", [0, 4, 8, 40, -1])
def test_a_truncated_file_is_refused_by_name(file, length):
    file.write_bytes(file.read_bytes()[:length])
    with pytest.raises(StorageError, match=r"whole\.safetensors .* nothing was loaded"):
        TensorFile(file)


def test_a_pickle_is_refused_and_never_run(tmp_path):
    path = tmp_path / "evil.safetensors"
    torch.save({"a": torch.ones(2)}, path)
    with pytest.raises(StorageError, match="not a safetensors file"):
        TensorFiles(path)


@pytest.mark.parametrize(
    "name",
    [
        "../m-00001-of-00002.safetensors",
        "/etc/m.safetensors",
        "sub/m.safetensors",
        "..\\m.safetensors",
        "C:\\m.safetensors",
        "model.pt",
        "",
        "..",
        7,
    ],
)
def test_an_index_names_safetensors_files_beside_it_and_nothing_else(index, name):
    write_index(index.parent, {"a": name})
    with pytest.raises(StorageError, match=r"is not a \.safetensors file beside it|weight_map"):
        TensorFiles(index)


NO_INDEX = ["", "[]", "{}", '{"weight_map": []}', '{"weight_map": 3}', "[" * 9999]


@pytest.mark.parametrize("text", NO_INDEX)
def test_an_index_that_is_none_is_refused(index, text):
    index.write_text(text)
    with pytest.raises(StorageError, match="has no weight_map"):
        TensorFiles(index)


def test_a_missing_shard_is_named(index):
    (index.parent / "m-00002-of-00002.safetensors").unlink()
    with pytest.raises(StorageError, match=r"needs m-00002-of-00002\.safetensors"):
        TensorFiles(index)


def test_an_index_that_disagrees_with_its_shards_is_refused(index):
    write_index(index.parent, dict.fromkeys("ab", "m-00001-of-00002.safetensors"))
    with pytest.raises(StorageError, match="disagree on 1 tensors, such as 'b'"):
        TensorFiles(index)
