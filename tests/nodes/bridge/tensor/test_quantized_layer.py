"""A quantized layer answers everything that ModelPatcher, merging and saving ask."""

import json

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


@pytest.mark.parametrize(
    ("fmt", "values"),
    [
        (Int8(), {"format": "int8_tensorwise"}),
        (
            Float8(granularity="per-tensor"),
            {"format": "float8_e4m3fn", "full_precision_matrix_mult": True},
        ),
        (
            Float8(granularity="per-tensor", activations="float8_e4m3fn"),
            {"format": "float8_e4m3fn"},
        ),
        (MXFP8("mxfp8"), {"format": "mxfp8"}),
        (NVFP4("nvfp4"), {"format": "nvfp4"}),
        (NVFP4(), {"format": "nvfp4", "full_precision_matrix_mult": True}),
    ],
    ids=str,
)
def test_the_state_dict_of_a_stock_format_has_stocks_keys(fmt, values):
    entries = layer_with(fmt).state_dict(prefix="x.")
    second = {"x.weight_scale_2"} if isinstance(fmt, NVFP4) else set()
    assert set(entries) == {"x.weight", "x.bias", "x.weight_scale", "x.comfy_quant"} | second
    assert json.loads(entries["x.comfy_quant"].numpy().tobytes()) == values
    assert entries["x.weight"].dtype == fmt.quantize(torch.ones(2, 2)).qdata.dtype


@pytest.mark.parametrize("fmt", [Float8(), Int4(64), Code4(), IntN()], ids=str)
def test_a_private_format_never_hides_under_stocks_key(fmt):
    entries = layer_with(fmt).state_dict(prefix="x.")
    assert not any("comfy_quant" in key for key in entries)
    assert json.loads(entries["x.graphquant"].numpy().tobytes()) == fmt.to_dict()


def test_module_size_counts_codes_scales_and_marker():
    import comfy.model_management

    layer = layer_with(Int8())
    marker = len(json.dumps({"format": "int8_tensorwise"}))
    assert comfy.model_management.module_size(layer) == 96 * 128 + 96 * 4 + 96 * 4 + marker


@pytest.mark.parametrize("fmt", [Int8(), Int4(64), NVFP4(), Code4(double_quant=True)], ids=str)
def test_every_key_of_the_state_dict_is_an_attribute(fmt):
    layer = layer_with(fmt)
    for key in layer.state_dict():
        assert isinstance(getattr(layer, key), torch.Tensor), key
    with pytest.raises(AttributeError, match="weight_lora_up"):
        _ = layer.weight_lora_up


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
