"""Whatever torch asks of a carrier, the numbers are the format's: any dtype, any spelling."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from graphquant.quant_core import quantize_component
from graphquant.quant_core.carriers.torchao_tensors import to_torchao
from graphquant.quant_core.formats import Float8, Int4, Int4Dynamic, Int8, LlmInt8
from lab.formats import EACH_KIND
from lab.sampling import relative_l2

FORMATS = [
    Int8(),
    Int8("per-tensor"),
    Int8(activations="int8"),
    Float8(),
    Float8(activations="float8_e4m3fn"),
    Float8("float8_e5m2", "per-tensor"),
    *EACH_KIND,
]
every_format = pytest.mark.parametrize("fmt", FORMATS, ids=str)


def quantized_layer(fmt, normal, dtype=torch.float32, k=128):
    layer = nn.Linear(k, 48, dtype=dtype).requires_grad_(False)
    weight = fmt.quantize(normal(48, k, dtype=dtype))
    layer.weight = nn.Parameter(to_torchao(weight), requires_grad=False)
    return layer


# Codes are up to 127 times and 448 times what float16's largest number leaves room for.
LARGE = [
    (0.02, 2048, 100.0),
    (1e-3, 2048, 5000.0),
    (0.02, 8192, 50.0),
    (1e-5, 256, 1.0),
    (3e-6, 256, 1.0),
]


@pytest.mark.parametrize("method", ["int8", "int8-dynamic", "fp8-weight-only", "fp8-dynamic"])
@pytest.mark.parametrize(("std", "k", "magnitude"), LARGE)
def test_float16_neither_overflows_nor_loses_small_weights(method, std, k, magnitude, normal):
    model = nn.Sequential(nn.Linear(k, 32, bias=False)).half().requires_grad_(False)
    model[0].weight.copy_(normal(32, k, std=std))
    x = normal(9, k, std=magnitude, seed=1).half()
    exact = F.linear(x.double(), model[0].weight.double())
    quantize_component(model, method)
    bound = 0.015 if method.startswith("int8") else 0.05
    assert relative_l2(model(x).double(), exact) < bound


@every_format
@pytest.mark.parametrize("rows", [0, 1, 17])
def test_any_number_of_rows_in_any_dtype(fmt, rows, normal):
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        layer = quantized_layer(fmt, normal, dtype)
        x = normal(rows, 128, std=1.0, dtype=dtype)
        y = layer(x)
        assert (y.shape, y.dtype) == ((rows, 48), dtype)
        stored = layer.weight.quantized_weight()
        assert torch.equal(y, fmt.linear(x, stored, layer.bias))


@every_format
def test_another_dtype_is_what_the_weight_presents_itself_as(fmt, normal, mode):
    layer = quantized_layer(fmt, normal)
    x = normal(5, 128, std=1.0)
    y, codes = layer(x), layer.weight.qdata.clone()
    for change in (
        nn.Module.half,
        nn.Module.double,
        nn.Module.bfloat16,
        lambda module: module.to(torch.float16),
        lambda module: module.to("cpu", torch.float64),
    ):
        moved = change(copy.deepcopy(layer))
        dtype = moved.bias.dtype
        assert moved.weight.dtype == moved.weight.dequantize().dtype == dtype
        assert torch.equal(moved.weight.qdata.float(), codes.float())
        assert moved(x.to(dtype)).dtype == dtype
        assert relative_l2(moved(x.to(dtype)).float(), y) < 0.06
    assert layer.weight.dtype == torch.float32


def test_a_dtype_of_integers_or_codes_is_refused(normal):
    weight = quantized_layer(Int8(), normal).weight
    for dtype in (torch.int8, torch.float8_e4m3fn, torch.int64, torch.bool):
        with pytest.raises(NotImplementedError, match="Call dequantize"):
            weight.to(dtype)


@every_format
def test_gradients_are_the_dequantized_weights(fmt, normal):
    layer = quantized_layer(fmt, normal)
    layer.bias.requires_grad_(True)
    x = normal(2, 5, 128, std=3.0).requires_grad_(True)
    gradient = normal(2, 5, 48, std=1.0, seed=3)
    layer(x).backward(gradient)
    assert torch.equal(x.grad, gradient @ layer.weight.dequantize())
    assert torch.allclose(layer.bias.grad, gradient.flatten(0, 1).sum(0))
    before = x.detach() + 0
    layer(x)
    assert torch.equal(x.detach(), before)


@pytest.mark.parametrize("fmt", [LlmInt8(), Int4Dynamic(), Int8(activations="int8"), Int4(64)])
def test_a_low_rank_adapter_beside_a_quantized_layer_learns(fmt, normal):
    """The adapter's input is an activation, whose gradient runs through the layer before it."""
    first, second = quantized_layer(fmt, normal, k=128), quantized_layer(fmt, normal, k=128)
    down = nn.Linear(128, 4, bias=False)
    up = nn.Linear(4, 128, bias=False)
    x, target = normal(8, 128, std=8.0), normal(8, 48, std=1.0, seed=5)
    optimizer = torch.optim.SGD([*down.parameters(), *up.parameters()], lr=0.01)
    losses = []
    for _ in range(5):
        loss = (second(x + up(down(x))) + first(x) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.98 * losses[0]


@every_format
def test_arguments_by_name_are_those_by_position(fmt, normal):
    layer, x = quantized_layer(fmt, normal), normal(5, 128, std=1.0)
    y = layer(x)
    assert torch.equal(y, F.linear(x, weight=layer.weight, bias=layer.bias))
    assert torch.equal(y, F.linear(input=x, weight=layer.weight, bias=layer.bias))
    assert torch.equal(y, F.linear(bias=layer.bias, weight=layer.weight, input=x))
    assert torch.equal(F.linear(x, weight=layer.weight), F.linear(x, layer.weight, None))


@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_a_convolutions_arguments_by_name_are_those_by_position(dimensions, normal):
    convolve = (F.conv1d, F.conv2d, F.conv3d)[dimensions - 1]
    weight = to_torchao(Int8().quantize(normal(12, 4, *[3] * dimensions)))
    bias, x = normal(12, seed=1), normal(2, 8, *[9] * dimensions, std=1.0)
    y = convolve(x, weight, bias, 2, 1, 1, 2)
    assert torch.equal(y, convolve(x, weight.dequantize(), bias, 2, 1, 1, 2))
    named = {"bias": bias, "stride": 2, "padding": 1, "groups": 2}
    assert torch.equal(y, convolve(x, weight=weight, **named))
    assert torch.equal(y, convolve(x, weight, **named))
    assert torch.equal(y, convolve(input=x, weight=weight, **named))


@every_format
def test_a_layer_loads_its_own_state_another_ones_and_a_plain_one(fmt, normal):
    layer, other = quantized_layer(fmt, normal), quantized_layer(fmt, normal)
    x, y = normal(5, 128, std=1.0), layer(normal(5, 128, std=1.0))
    layer.load_state_dict(copy.deepcopy(layer.state_dict()))
    assert torch.equal(layer(x), y)
    plain = nn.Linear(128, 48).requires_grad_(False)
    plain.weight.copy_(normal(48, 128, seed=7))
    other.load_state_dict(plain.state_dict())
    assert relative_l2(other.weight.dequantize(), fmt.quantize(plain.weight).dequantize()) == 0
    assert not torch.equal(other(x), y)
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other(x), y)
    plain.load_state_dict(layer.state_dict())
    assert torch.equal(plain.weight, layer.weight.dequantize())


def test_a_weight_of_another_format_is_rounded_and_of_another_shape_refused(normal):
    layer = quantized_layer(Int8(), normal)
    other = quantized_layer(Float8(), normal)
    other.weight.data.copy_(layer.weight)
    exact = Float8().quantize(layer.weight.dequantize()).dequantize()
    assert torch.equal(other.weight.dequantize(), exact)
    with pytest.raises(ValueError, match=r"\[48, 64\] does not fit one of \[48, 128\]"):
        layer.weight.data.copy_(normal(48, 64))
