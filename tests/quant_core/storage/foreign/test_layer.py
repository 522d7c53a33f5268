"""The layers of other libraries: found by the names of their tensors, and read with checks."""

from contextlib import ExitStack

import pytest
import torch
from safetensors.torch import save_file

from graphquant.quant_core.errors import StorageError
from graphquant.quant_core.formats import Int8
from graphquant.quant_core.storage import TensorFiles
from graphquant.quant_core.storage.foreign.layer import ForeignLayer, layers_with


@pytest.fixture
def files(tmp_path):
    path = tmp_path / "m.safetensors"
    tensors = {
        "a.weight": torch.ones(4, 8, dtype=torch.int8),
        "a.scale": torch.full((4, 1), 0.5),
        "b.c.scale": torch.ones(1),
    }
    save_file(tensors, path)
    with ExitStack() as stack:
        yield stack.enter_context(TensorFiles(path))


def test_layers_are_named_by_what_their_tensors_end_in(files):
    assert sorted(layers_with(files, "scale")) == ["a", "b.c"]
    assert layers_with(files, "cale") == []


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
