"""Each format finds the torchao tensor that means the same; without torchao one line tells why."""

import dataclasses
from importlib.metadata import PackageNotFoundError

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchao.prototype.safetensors.safetensors_support import (
    flatten_tensor_state_dict,
    unflatten_tensor_state_dict,
)
from torchao.quantization import (
    Float8Tensor,
    Float8WeightOnlyConfig,
    Int8DynamicActivationInt8WeightConfig,
    Int8Tensor,
    Int8WeightOnlyConfig,
    quantize_,
)

from graphquant.quant_core import TorchAOError, quantize_component
from graphquant.quant_core.carriers import torchao_tensors
from graphquant.quant_core.carriers.packed import PackedTensor
from graphquant.quant_core.carriers.torchao_tensors import require_torchao, to_torchao
from graphquant.quant_core.detect import stored_bytes
from graphquant.quant_core.formats import Float8, Format, Int4, Int8
from lab.formats import EACH_KIND
from lab.sampling import relative_l2

WEIGHT_ONLY = {
    Int8(): Int8Tensor,
    Int8("per-tensor"): Int8Tensor,
    Float8(): Float8Tensor,
    Float8(granularity="per-tensor"): Float8Tensor,
    Float8(dtype="float8_e5m2"): Float8Tensor,
    Int4(64): PackedTensor,
    **dict.fromkeys(EACH_KIND, PackedTensor),
}
DYNAMIC = {
    Int8(activations="int8"): Int8Tensor,
    Int8("per-tensor", activations="int8"): Int8Tensor,
    Float8(activations="float8_e4m3fn"): Float8Tensor,
    Float8(granularity="per-tensor", activations="float8_e4m3fn"): Float8Tensor,
}


@pytest.mark.parametrize(("fmt", "cls"), (WEIGHT_ONLY | DYNAMIC).items(), ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_tensor_holds_the_same_weight_over_the_same_storage(fmt, cls, dtype, normal):
    weight = fmt.quantize(normal(48, 128, dtype=dtype))
    tensor = to_torchao(weight)
    assert isinstance(tensor, cls)
    assert type(tensor).__name__ == cls.__name__
    assert (tensor.shape, tensor.dtype, tensor.device.type) == ((48, 128), dtype, "cpu")
    assert tensor.qdata.data_ptr() == weight.qdata.data_ptr()
    assert tensor.scale.data_ptr() == weight.scale.data_ptr()
    assert stored_bytes(tensor) == weight.nbytes
    assert torch.equal(tensor.dequantize(), weight.dequantize())


@pytest.mark.parametrize("fmt", WEIGHT_ONLY | DYNAMIC, ids=str)
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64], ids=str)
def test_the_tensor_multiplies_as_the_format_does(fmt, dtype, normal):
    weight, x = fmt.quantize(normal(48, 128, dtype=dtype)), normal(2, 5, 128, std=1.0, dtype=dtype)
    bias = normal(48, std=1.0, seed=1, dtype=dtype)
    product = F.linear(x, to_torchao(weight), bias)
    assert product.dtype == dtype
    assert torch.equal(product, fmt.linear(x, weight, bias))


@pytest.mark.parametrize(
    ("theirs", "fmt", "bound"),
    [
        (Int8WeightOnlyConfig(), Int8(), 1e-6),
        (Int8DynamicActivationInt8WeightConfig(), Int8(activations="int8"), 0.01),
        (Float8WeightOnlyConfig(), Float8(), 1e-6),
    ],
    ids=str,
)
def test_torchaos_own_product_is_the_same_but_for_rounding(theirs, fmt, bound, normal):
    layer = nn.Linear(128, 48, bias=False)
    layer.weight = nn.Parameter(normal(48, 128), requires_grad=False)
    ours = to_torchao(fmt.quantize(layer.weight.detach()))
    quantize_(layer, theirs, filter_fn=lambda *_: True)
    x = normal(2, 5, 128, std=1.0)
    assert type(layer.weight) is type(ours).__bases__[0]
    assert relative_l2(layer(x), F.linear(x, ours)) < (
        1e-6 if "Dynamic" not in str(theirs) else 0.01
    )


@pytest.mark.parametrize("fmt", DYNAMIC, ids=str)
def test_torchao_knows_that_activations_are_quantized(fmt, normal):
    tensor = to_torchao(fmt.quantize(normal(48, 128)))
    assert tensor.act_quant_kwargs is not None
    assert tensor.quantized_weight().format == fmt


@pytest.mark.parametrize("fmt", [Int8(), Int8("per-tensor"), Float8(activations="float8_e4m3fn")])
def test_torchaos_safetensors_take_it_apart_and_make_torchaos_own_of_it(fmt, normal):
    tensor = to_torchao(fmt.quantize(normal(48, 128, dtype=torch.bfloat16)))
    parts, metadata = flatten_tensor_state_dict({"x.weight": tensor})
    made, left = unflatten_tensor_state_dict(parts, metadata)
    assert left == {}
    assert type(made["x.weight"]) is type(tensor).__bases__[0]
    assert torch.equal(made["x.weight"].qdata.float(), tensor.qdata.float())
    assert made["x.weight"].block_size == tensor.block_size


@pytest.mark.parametrize("fmt", DYNAMIC, ids=str)
def test_all_zero_tokens_give_the_bias_alone(fmt, normal):
    weight = fmt.quantize(normal(48, 128, dtype=torch.bfloat16))
    bias = normal(48, std=1.0, dtype=torch.bfloat16)
    y = F.linear(torch.zeros(3, 128, dtype=torch.bfloat16), to_torchao(weight), bias)
    assert torch.equal(y, bias.expand(3, 48))


@pytest.mark.parametrize("fmt", [Int8(), Int8("per-tensor")], ids=str)
def test_a_convolution_goes_into_a_tensor_that_can_convolve(fmt, normal):
    tensor = to_torchao(fmt.quantize(normal(8, 4, 3, 3)))
    assert type(tensor) is PackedTensor
    assert tensor.shape == (8, 4, 3, 3)


def test_a_format_that_torchao_does_not_know_goes_into_the_packed_tensor(normal):
    class Int3(Format):
        def quantize(self, weight):
            return Int8().quantize(weight)

        dequantize = None

        def __str__(self):
            return "int3"

    weight = dataclasses.replace(Int8().quantize(normal(2, 4)), format=Int3())
    assert type(to_torchao(weight)) is PackedTensor
    assert to_torchao(weight).format == Int3()


@pytest.mark.parametrize("found", ["0.17.0", "0.18.0", "0.18.1+cu130", "0.19.0.dev20260901", "1.0"])
def test_a_recent_torchao_is_taken(found, monkeypatch):
    monkeypatch.setattr(torchao_tensors, "version", lambda name: found)
    require_torchao()


def missing(name):
    raise PackageNotFoundError(name)


@pytest.mark.parametrize(
    ("version", "fact"),
    [
        (missing, "torchao is not installed."),
        (lambda name: "0.16.0", "torchao 0.16.0 is too old."),
        (lambda name: "0.9.0+git1234", "torchao 0.9.0+git1234 is too old."),
    ],
    ids=["missing", "0.16", "0.9"],
)
def test_without_torchao_the_first_line_is_the_fact_and_the_pip_line(
    version, fact, monkeypatch, transformer
):
    monkeypatch.setattr(torchao_tensors, "version", version)
    before = list(transformer.parameters())
    with pytest.raises(TorchAOError) as caught:
        quantize_component(transformer, "int8")
    assert str(caught.value) == f'{fact} Run: python -m pip install "torchao>=0.17,<0.19"'
    assert isinstance(caught.value, ImportError)
    assert all(old is new for old, new in zip(before, transformer.parameters(), strict=True))
