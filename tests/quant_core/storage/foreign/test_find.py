"""A file is given to the one library that wrote it; what belongs to nobody is refused or plain."""

import pytest
import torch

from graphquant.quant_core.errors import StorageError
from graphquant.quant_core.storage.foreign import find_foreign


def test_a_file_of_nobodys_is_none(found):
    foreign, _ = found({"layer.weight": torch.zeros(16, 16), "layer.bias": torch.zeros(16)})
    assert foreign is None


@pytest.mark.parametrize("part", ["absmax", "quant_map", "nested_absmax", "nested_quant_map"])
def test_a_part_of_bitsandbytes_without_its_layer_is_a_file_that_is_not_whole(found, part):
    with pytest.raises(StorageError, match=rf"has a\.{part}, which belongs to no quantized layer"):
        found({f"a.{part}": torch.zeros(4), "a.weight": torch.zeros(4, 4)})


def fp8_layer():
    """As ModelOpt writes one: FP8 weight, its scale, the scale of its activations."""
    codes = torch.ones(32, 48).to(torch.float8_e4m3fn)
    scales = {"weight_scale": torch.tensor(0.5), "input_scale": torch.tensor(0.25)}
    return {"a.weight": codes, **{f"a.{name}": value for name, value in scales.items()}}


def test_activations_are_left_alone_where_fp8_is_not_multiplied(found):
    foreign, files = found(fp8_layer())
    assert foreign.layers["a"].format.needs_fp8_matmul
    weight_only = find_foreign(files, fp8_matmul=False).layers["a"]
    assert not weight_only.format.needs_fp8_matmul
    assert weight_only.origin == f"{foreign.layers['a'].origin}, weight-only"
    read = weight_only.read(files, torch.float32)
    assert torch.equal(read.dequantize(), torch.full((32, 48), 0.5))


def test_what_no_layer_takes_is_plain(found):
    foreign, _ = found({**fp8_layer(), "a.bias": torch.zeros(32), "norm.weight": torch.ones(4)})
    assert sorted(foreign.plain) == ["a.bias", "norm.weight"]
    assert sorted(foreign.layers["a"].tensors) == ["a.input_scale", "a.weight", "a.weight_scale"]
