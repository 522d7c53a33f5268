"""What is asked of a header and of a marker, each refusal with the tensor's name."""

import pytest
import torch
from safetensors.torch import save_file

from graphquant.quant_core.errors import StorageError
from graphquant.quant_core.storage import TensorFiles
from graphquant.quant_core.storage.checks import raw_bytes, read_json, require_spec


def text(value):
    return torch.frombuffer(bytearray(value.encode()), dtype=torch.uint8)


@pytest.fixture
def files(tmp_path):
    path = tmp_path / "m.safetensors"
    tensors = {
        "a.weight": torch.ones(4, 8, dtype=torch.int8),
        "object": text('{"bits": 4}'),
        "list": text("[4]"),
        "broken": text("{"),
        "long": text(" " * 70_000),
    }
    save_file(tensors, path)
    with TensorFiles(path) as opened:
        yield opened


@pytest.mark.parametrize(
    ("name", "dtype", "shape", "text"),
    [
        ("a.bias", torch.int8, None, "m.safetensors lacks a.bias. Download or save it again"),
        ("a.weight", torch.uint8, None, "has a.weight as torch.int8 [4, 8], not torch.uint8"),
        ("a.weight", torch.int8, (8, 4), "[4, 8], not torch.int8 [8, 4]"),
    ],
)
def test_a_tensor_that_is_missing_or_otherwise_is_refused(files, name, dtype, shape, text):
    assert require_spec(files, "a.weight", torch.int8, (4, 8)).shape == (4, 8)
    with pytest.raises(StorageError) as error:
        require_spec(files, name, dtype, shape)
    assert text in str(error.value)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("list", "has list that is not a JSON object"),
        ("broken", "has broken that is not JSON"),
        ("long", "has 70000 bytes in long, which is a short text"),
    ],
)
def test_a_marker_that_is_not_a_json_object_is_refused(files, name, text):
    assert read_json(files, "object") == {"bits": 4}
    with pytest.raises(StorageError, match=text):
        read_json(files, name)


def test_a_text_that_is_given_is_read_instead_of_the_tensor(files):
    assert read_json(files, "the metadata", '{"bits": 8}') == {"bits": 8}
    with pytest.raises(StorageError, match="has the metadata that is not JSON"):
        read_json(files, "the metadata", "[" * 100_000)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.float32])
def test_a_marker_s_bytes_are_read_whatever_dtype_it_claims(dtype):
    assert raw_bytes(text("12345678").view(dtype)) == b"12345678"
