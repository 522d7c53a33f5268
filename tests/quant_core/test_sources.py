"""Weights that are quantized already, read as numbers; and which of them are rounded again."""

import types

import pytest
import torch
from comfy_kitchen.tensor import QuantizedTensor
from torch import nn
from torchao.quantization import Float8WeightOnlyConfig, Int8WeightOnlyConfig, quantize_, to_nf4

from graphquant.quant_core import plan_component, quantize_component
from graphquant.quant_core.methods import get_method
from graphquant.quant_core.sources import code_bits, float_weight, source_of
from lab.foreign_layers import dequantized, ggml_tensor

SHAPE = (128, 256)


@pytest.fixture
def weight(normal):
    return normal(*SHAPE)


def layer_with(weight, **attributes):
    layer = nn.Linear(*reversed(SHAPE), bias=False)
    layer.weight = nn.Parameter(weight, requires_grad=False)
    for name, value in attributes.items():
        setattr(layer, name, value)
    return layer


def by_torchao(weight, config):
    model = nn.Sequential(layer_with(weight.clone()))
    quantize_(model, config)
    return model[0]


def ours(weight, method):
    model = nn.Sequential(layer_with(weight.clone()))
    quantize_component(model, method)
    return model[0]


def kitchen(weight, layout):
    return layer_with(QuantizedTensor.from_float(weight, layout))


def bnb8(weight):
    scale = weight.abs().amax(1)
    layer = layer_with((weight / scale[:, None] * 127).round().to(torch.int8))
    layer.weight.SCB = scale
    return layer


def bnb4(weight, nested):
    bnb = pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")
    packed, state = bnb.functional.quantize_4bit(
        weight, quant_type="nf4", compress_statistics=nested
    )
    layer = layer_with(packed)
    layer.weight.quant_state = state
    return layer


# How a layer is made; its family, the bits of a code, how far it may be from the weight (0.033 in
# FP8 without a scale: ComfyUI's layout of that name takes 1).
KINDS = {
    "native fp8": (lambda w: layer_with(w.to(torch.float8_e4m3fn)), "float8", 8, 0.04),
    "torchao fp8": (lambda w: by_torchao(w, Float8WeightOnlyConfig()), "float8", 8, 0.03),
    "torchao int8": (
        lambda w: by_torchao(w, Int8WeightOnlyConfig(set_inductor_config=False)),
        "int8",
        8,
        0.01,
    ),
    "torchao nf4": (lambda w: layer_with(to_nf4(w)), "code4", 4, 0.11),
    "our int4": (lambda w: ours(w, "int4"), "int4", 4, 0.11),
    "our fp8": (lambda w: ours(w, "fp8-weight-only"), "float8", 8, 0.03),
    "stock int8": (lambda w: kitchen(w, "TensorWiseINT8Layout"), "int8", 8, 0.02),
    "stock fp8": (lambda w: kitchen(w, "TensorCoreFP8Layout"), "float8", 8, 0.04),
    "stock nvfp4": (lambda w: kitchen(w, "TensorCoreNVFP4Layout"), "nvfp4", 4, 0.11),
    "bitsandbytes 8": (bnb8, "int8", 8, 0.01),
    "bitsandbytes 4": (lambda w: bnb4(w, False), "code4", 4, 0.11),
    "bitsandbytes 4, nested": (lambda w: bnb4(w, True), "code4", 4, 0.11),
    "GGUF Q8_0": (lambda w: layer_with(ggml_tensor(w, "Q8_0")), "gguf", 8, 0.01),
    "GGUF Q5_0": (lambda w: layer_with(ggml_tensor(w, "Q5_0")), "gguf", 5, 0.06),
    "GGUF F16": (lambda w: layer_with(ggml_tensor(w, "F16")), "gguf", 16, 0.001),
    "GGUF BF16": (lambda w: layer_with(ggml_tensor(w, "BF16")), "gguf", 16, 0.003),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_read_as_the_weight_that_it_is(kind, weight):
    make, family, bits, bound = KINDS[kind]
    source = source_of(make(weight))
    assert (source.family, source.bits, source.shape) == (family, bits, SHAPE)
    numbers = source.read(None)
    assert numbers.dtype == torch.float32
    assert (numbers - weight).norm() / weight.norm() < bound
    assert torch.equal(source.read(torch.device("cpu")), numbers)


def test_ggml_blocks_are_read_to_the_last_bit(weight):
    tensor = ggml_tensor(weight, "Q5_0")
    assert torch.equal(float_weight(layer_with(tensor)), dequantized(tensor))


def test_floats_come_as_they_are(weight):
    layer = layer_with(weight)
    assert source_of(layer) is None
    assert float_weight(layer).data_ptr() == layer.weight.data_ptr()


def test_a_smoothed_layer_is_read_with_its_columns_multiplied(weight):
    smoothing = torch.linspace(0.5, 2, SHAPE[1])
    layer = layer_with(weight.to(torch.float8_e4m3fn))
    plain = float_weight(layer)
    layer.pre_quant_scale = nn.Parameter(smoothing, requires_grad=False)
    x = torch.randn(3, SHAPE[1])
    assert torch.allclose(x @ float_weight(layer).T, (x * smoothing) @ plain.T, atol=1e-5)


@pytest.mark.parametrize(
    "layer",
    [
        lambda w: layer_with(w.to(torch.float8_e4m3fn), weight_scale=torch.ones(())),
        lambda w: layer_with((w * 1000).to(torch.int8)),
        lambda w: layer_with(torch.zeros(8, 8, dtype=torch.uint8)),
        lambda w: layer_with(
            torch.zeros(8, 8, dtype=torch.uint8), quant_state=types.SimpleNamespace(quant_type="x")
        ),
    ],
    ids=["a scale of its own", "int8 codes", "bytes", "unknown codes"],
)
def test_what_is_not_known_is_not_read(layer, weight):
    made = layer(weight)
    assert source_of(made) is None
    plan = plan_component(nn.Sequential(made, nn.Linear(64, 64)), "int4", requantize=True)
    assert "which cannot be read here" in plan.layers[0].reason


# (what it is, the method asked for) -> whether it is rounded again
AGAIN = {
    ("native fp8", "int8"): True,
    ("native fp8", "fp8-dynamic"): False,
    ("native fp8", "fp8-block"): False,
    ("native fp8", "w4a8"): True,
    ("stock int8", "int8-dynamic"): False,
    ("stock int8", "llm.int8"): False,
    ("stock int8", "int8-convrot"): True,
    ("stock nvfp4", "int8"): False,
    ("stock nvfp4", "nf4"): True,
    ("stock nvfp4", "int3"): True,
    ("bitsandbytes 4", "nf4-double"): False,
    ("GGUF Q5_0", "int6"): False,
    ("GGUF Q5_0", "int5"): True,
    ("GGUF F16", "int8"): True,
}


@pytest.mark.parametrize("case", AGAIN, ids=" to ".join)
def test_no_weight_goes_to_more_bits_or_to_its_own_codes(case, weight):
    kind, method = case
    layer = KINDS[kind][0](weight)
    plan = plan_component(nn.Sequential(layer), method, requantize=True)
    assert (len(plan.quantized) == 1) is AGAIN[case], plan.layers[0].reason
    if AGAIN[case]:
        assert any("two roundings add up" in text for text in plan.warnings)


def test_every_format_says_its_bits(weight):
    for method, bits in {"int8": 8, "int3": 3, "nf4-fine": 4, "w6a8": 6, "fp6": 6}.items():
        fmt = get_method(method).choose(SHAPE, "per-row").format
        assert code_bits(fmt, SHAPE) == bits


def test_in_python_too_a_layer_is_rounded_again(weight):
    model = nn.Sequential(layer_with(weight.to(torch.float8_e4m3fn)))
    before = float_weight(model[0])
    _, stats = quantize_component(model, "int8", requantize=True)
    assert stats["layers"][0]["source"] == "float8_e4m3fn"
    assert (float_weight(model[0]) - before).norm() / before.norm() < 0.01
