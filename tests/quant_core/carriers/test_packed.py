"""The tensor for what torchao has no class for: it lives through what modules do to weights."""

import copy
import dataclasses
import io

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from graphquant.quant_core.carriers.packed import PackedTensor
from graphquant.quant_core.formats import Int4, Int8
from lab.sampling import relative_l2


@pytest.fixture
def layer(normal):
    """A Linear of INT4, in bfloat16."""
    made = nn.Linear(256, 48, dtype=torch.bfloat16).requires_grad_(False)
    weight = Int4(64).quantize(normal(48, 256, dtype=torch.bfloat16))
    made.weight = nn.Parameter(PackedTensor.of(weight), requires_grad=False)
    return made


@pytest.fixture
def x(normal):
    return normal(7, 256, std=1.0, seed=1, dtype=torch.bfloat16)


def test_linear_honours_the_bias_by_position_and_by_keyword(layer, x):
    y = F.linear(x, layer.weight, layer.bias)
    assert torch.equal(y, F.linear(x, layer.weight, bias=layer.bias))
    assert torch.equal(y, F.linear(x, layer.weight.dequantize(), layer.bias))
    assert not torch.equal(y, F.linear(x, layer.weight))
    assert torch.equal(y, layer(x))


def test_it_computes_in_the_dtype_of_the_input(layer, x):
    y = F.linear(x.float(), layer.weight, layer.bias.float())
    assert y.dtype == torch.float32
    exact = F.linear(x.float(), layer.weight.dequantize(torch.float32), layer.bias.float())
    assert relative_l2(y, exact) < 1e-6


def test_copies_own_their_storage_and_compute_the_same(layer, x):
    copied = copy.deepcopy(layer)
    assert type(copied.weight) is PackedTensor
    assert copied.weight.qdata.data_ptr() != layer.weight.qdata.data_ptr()
    assert torch.equal(copied(x), layer(x))
    assert torch.equal(F.linear(x, layer.weight.clone(), layer.bias), layer(x))
    assert layer.weight.detach().qdata.data_ptr() == layer.weight.qdata.data_ptr()


def test_moving_takes_all_parts_along(layer):
    moved = copy.deepcopy(layer).to("meta").weight
    assert type(moved) is PackedTensor
    parts = (moved.qdata, moved.scale, moved.zero_point)
    assert [part.device.type for part in (moved, *parts)] == ["meta"] * 4


def test_every_part_that_a_weight_may_have_is_carried(layer):
    weight = layer.weight.quantized_weight()
    one = torch.ones(())
    full = dataclasses.replace(weight, scale_2=one, input_scale=2 * one)
    tensor = PackedTensor.of(full)
    moved = copy.deepcopy(tensor).to("meta").quantized_weight()
    assert list(moved.tensors) == ["qdata", "scale", "zero_point", "scale_2", "input_scale"]
    assert {part.device.type for part in moved.tensors.values()} == {"meta"}
    assert tensor.quantized_weight().input_scale == 2
    assert full.nbytes == weight.nbytes + 8


def test_a_state_dict_goes_through_a_file_and_back(layer, x, normal):
    file = io.BytesIO()
    torch.save(layer.state_dict(), file)
    file.seek(0)
    loaded = torch.load(file, weights_only=True)
    other = nn.Linear(256, 48, dtype=torch.bfloat16, device="meta")
    other.load_state_dict(loaded, assign=True)
    assert torch.equal(other(x), layer(x))


def test_a_state_dict_loads_into_a_layer_of_the_same_format(layer, x, normal):
    other = copy.deepcopy(layer)
    weight = Int4(64).quantize(normal(48, 256, seed=9, dtype=torch.bfloat16))
    other.weight = nn.Parameter(PackedTensor.of(weight), requires_grad=False)
    assert not torch.equal(other(x), layer(x))
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other(x), layer(x))


def test_an_operation_it_does_not_know_is_an_error_and_not_a_wrong_number(layer):
    with pytest.raises(NotImplementedError, match="PackedTensor"):
        layer.weight + 1


@pytest.mark.parametrize("dimensions", [1, 2, 3])
@pytest.mark.parametrize("granularity", ["per-row", "per-tensor"])
def test_a_convolution_keeps_its_stride_padding_groups_and_bias(dimensions, granularity, normal):
    cls = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dimensions - 1]
    conv = cls(8, 12, 3, stride=2, padding=1, groups=2).requires_grad_(False)
    exact = conv.weight.detach().clone()
    x = normal(2, 8, *[9] * dimensions, std=1.0)
    before = conv(x)
    weight = Int8(granularity).quantize(exact)
    conv.weight = nn.Parameter(PackedTensor.of(weight), requires_grad=False)
    assert conv.weight.zero_point is None
    assert torch.equal(conv(x), conv._conv_forward(x, weight.dequantize(), conv.bias))
    assert 1e-4 < relative_l2(conv(x), before) < 0.01
    copied = copy.deepcopy(conv)
    assert torch.equal(copied(x), conv(x))
    assert copied.to("meta").weight.device.type == "meta"
