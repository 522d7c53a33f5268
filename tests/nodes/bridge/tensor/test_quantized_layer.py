"""A quantized layer answers everything that ModelPatcher, merging and saving ask."""

import pytest
import torch

from graphquant.quant_core.formats import MXFP8, NVFP4, Code4, Float8, Int4, Int8, IntN

pytestmark = pytest.mark.usefixtures("comfy", "inference_mode")


def layer_with(fmt, in_features=128, out_features=96):
    import comfy.ops

    from graphquant.nodes.bridge.tensor.quantized_layer import quantize_layer

    layer = comfy.ops.manual_cast.Linear(in_features, out_features)
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(out_features, in_features, generator=generator)
    layer.weight = torch.nn.Parameter(weight, requires_grad=False)
    layer.bias = torch.nn.Parameter(torch.zeros(out_features), requires_grad=False)
    quantize_layer(layer, fmt.quantize(weight), torch.float32)
    return layer


def test_it_is_still_an_instance_of_its_own_class():
    import comfy.ops

    layer = layer_with(Int8())
    assert isinstance(layer, comfy.ops.manual_cast.Linear)
    assert type(layer) is type(layer_with(Float8()))
    assert layer.in_features == 128


FORMATS = [Int8(), Float8(), MXFP8("mxfp8"), NVFP4(), Int4(64), Code4(double_quant=True), IntN()]


@pytest.mark.parametrize("fmt", FORMATS, ids=str)
def test_a_state_dict_says_what_the_weight_means(fmt):
    layer = layer_with(fmt)
    entries = layer.state_dict(prefix="x.")
    assert set(entries) == {"x.weight", "x.bias"}
    assert entries["x.weight"].shape == (96, 128)
    assert torch.equal(entries["x.weight"].float(), layer.weight.dequantize())


@pytest.mark.parametrize("fmt", FORMATS, ids=str)
def test_a_plain_layer_takes_the_state_of_a_quantized_one(fmt):
    layer, plain = layer_with(fmt), torch.nn.Linear(128, 96)
    plain.load_state_dict(layer.state_dict())
    assert torch.equal(plain.weight, layer.weight.dequantize())


@pytest.mark.parametrize("fmt", FORMATS, ids=str)
def test_a_quantized_layer_takes_the_state_of_its_like_bit_by_bit(fmt):
    layer, other = layer_with(fmt), layer_with(fmt)
    other.set_weight(other.convert_weight(other.weight) * 2)
    found = other.load_state_dict(layer.state_dict())
    assert (found.missing_keys, found.unexpected_keys) == ([], [])
    assert torch.equal(other.weight._qdata.view(torch.uint8), layer.weight._qdata.view(torch.uint8))
    assert torch.equal(other.weight.dequantize(), layer.weight.dequantize())


@pytest.mark.parametrize("fmt", FORMATS, ids=str)
def test_a_quantized_layer_rounds_a_plain_state_once(fmt):
    layer = layer_with(fmt)
    plain = torch.nn.Linear(128, 96)
    layer.load_state_dict(plain.state_dict())
    assert torch.equal(layer.weight.dequantize(), fmt.quantize(plain.weight).dequantize())
    assert torch.equal(layer.bias, plain.bias)


def test_a_state_of_another_shape_is_refused():
    with pytest.raises(RuntimeError, match=r"size mismatch for weight: \[96, 64\]"):
        layer_with(Int8()).load_state_dict(torch.nn.Linear(64, 96).state_dict())


def test_a_state_dict_that_somebody_writes_into_refuses_it():
    with pytest.raises(TypeError, match="can't be changed in its state dict"):
        layer_with(Int8()).state_dict()["weight"].mul_(2)


def test_module_size_counts_codes_and_scales():
    import comfy.model_management

    assert comfy.model_management.module_size(layer_with(Int8())) == 96 * 128 + 96 * 4 + 96 * 4


def test_set_weight_returns_or_assigns_the_patched_weight():
    layer = layer_with(Int8())
    original = layer.convert_weight(layer.weight)
    delta = torch.ones(96, 1) @ torch.ones(1, 128)
    returned = layer.set_weight(original + delta, return_weight=True, seed=3)
    assert torch.equal(layer.convert_weight(layer.weight), original)
    assert (returned.dequantize() - original - delta).abs().max() < 1e-4
    layer.set_weight(original + delta)
    assert torch.equal(layer.weight.dequantize(), returned.dequantize())


def test_moving_the_layer_keeps_the_weight_quantized():
    layer = layer_with(Int8())
    before = layer.weight._qdata
    layer.to("cpu", torch.bfloat16)
    assert torch.equal(layer.weight._qdata, before)
    assert layer.weight.dtype == torch.bfloat16
