"""What a recogniser asks of a header and of a marker, each refusal with the tensor's name."""

from contextlib import ExitStack

import pytest
import torch
from safetensors.torch import save_file

from graphquant.quant_core.errors import StorageError
from graphquant.quant_core.formats import Int8
from graphquant.quant_core.storage import TensorFiles
from graphquant.quant_core.storage.foreign.layer import (
    ForeignLayer,
    layers_with,
    read_json,
    require_spec,
)


@pytest.fixture
def files(tmp_path):
    def text(value):
        return torch.frombuffer(bytearray(value.encode()), dtype=torch.uint8)

    path = tmp_path / "m.safetensors"
    tensors = {
        "a.weight": torch.ones(4, 8, dtype=torch.int8),
        "a.scale": torch.full((4, 1), 0.5),
        "b.c.scale": torch.ones(1),
        "object": text('{"bits": 4}'),
        "list": text("[4]"),
        "broken": text("{"),
        "long": text(" " * 70_000),
    }
    save_file(tensors, path)
    with ExitStack() as stack:
        yield stack.enter_context(TensorFiles(path))


def test_layers_are_named_by_what_their_tensors_end_in(files):
    assert sorted(layers_with(files, "scale")) == ["a", "b.c"]
    assert layers_with(files, "cale") == []


@pytest.mark.parametrize(
    ("name", "dtype", "shape", "text"),
    [
        ("a.bias", torch.int8, None, "m.safetensors lacks a.bias. Download it again"),
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
def test_a_marker_that_is_no_json_object_is_refused(files, name, text):
    assert read_json(files, "object") == {"bits": 4}
    with pytest.raises(StorageError, match=text):
        read_json(files, name)


def layer(names, parts):
    def make(tensors):
        return {part: tensors[name] for part, name in parts.items()}

    return ForeignLayer("a", "test", Int8(), (4, 8), torch.float32, names, make)


def test_a_layer_is_read_into_its_format_or_refused_where_a_part_is_otherwise(files):
    parts = {"qdata": "a.weight", "scale": "a.scale"}
    read = layer(("a.weight", "a.scale"), parts).read(files, torch.float32)
    assert torch.equal(read.dequantize(), torch.full((4, 8), 0.5))
    with pytest.raises(StorageError, match="a is "):
        layer(("a.weight", "b.c.scale"), {**parts, "scale": "b.c.scale"}).read(files, torch.float32)
