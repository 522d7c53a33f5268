"""Each format finds the torchao tensor that means the same; without torchao one line tells why."""

import dataclasses
from importlib.metadata import PackageNotFoundError

import pytest
import torch
import torch.nn.functional as F
from torchao.quantization import Float8Tensor, Int8Tensor

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
# Row-wise FP8 products are for GPUs: torch says so on a CPU.
DYNAMIC = {
    Int8(activations="int8"): Int8Tensor,
    Int8("per-tensor", activations="int8"): Int8Tensor,
    Float8(granularity="per-tensor", activations="float8_e4m3fn"): Float8Tensor,
}


@pytest.mark.parametrize(("fmt", "cls"), (WEIGHT_ONLY | DYNAMIC).items(), ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_tensor_holds_the_same_weight_over_the_same_storage(fmt, cls, dtype, normal):
    weight = fmt.quantize(normal(48, 128, dtype=dtype))
    tensor = to_torchao(weight)
    assert type(tensor) is cls
    assert (tensor.shape, tensor.dtype, tensor.device.type) == ((48, 128), dtype, "cpu")
    assert tensor.qdata.data_ptr() == weight.qdata.data_ptr()
    assert tensor.scale.data_ptr() == weight.scale.data_ptr()
    assert stored_bytes(tensor) == weight.nbytes
    assert torch.equal(tensor.dequantize(), weight.dequantize())


@pytest.mark.parametrize("fmt", WEIGHT_ONLY, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_torchao_multiplies_as_the_format_does(fmt, dtype, normal):
    weight, x = fmt.quantize(normal(48, 128, dtype=dtype)), normal(2, 5, 128, std=1.0, dtype=dtype)
    bias = normal(48, std=1.0, seed=1, dtype=dtype)
    theirs = F.linear(x, to_torchao(weight), bias)
    assert theirs.dtype == dtype
    bound = 1e-6 if dtype == torch.float32 else 0.006
    assert relative_l2(theirs, fmt.linear(x, weight, bias)) < bound


@pytest.mark.parametrize("fmt", DYNAMIC, ids=str)
def test_dynamic_activations_reach_torchao(fmt, normal):
    exact, x = normal(256, 512), normal(33, 512, std=1.0, seed=1)
    bias = normal(256, std=1.0, seed=2)
    weight = fmt.quantize(exact.bfloat16())
    weight_only = relative_l2(weight.dequantize(), exact)
    y = F.linear(x.bfloat16(), to_torchao(weight), bias.bfloat16())
    error = relative_l2(y - bias, F.linear(x, exact))
    assert 1.1 * weight_only < error < 1.9 * weight_only


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
