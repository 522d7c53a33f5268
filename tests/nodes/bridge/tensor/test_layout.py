"""The layout carries every format as a ComfyUI QuantizedTensor, with and without a LoRA."""

import pytest
import torch
import torch.nn.functional as F

from graphquant.quant_core.formats import Float8, Int4, Int8
from lab.formats import EACH_KIND

pytestmark = pytest.mark.usefixtures("comfy", "inference_mode")

FORMATS = [
    Int8(),
    Int8(activations="int8"),
    Float8(),
    Float8(granularity="per-tensor"),
    Int4(64),
    *EACH_KIND,
]
IDS = [str(fmt) for fmt in FORMATS]


def gaussian(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def carried(fmt, weight, dtype=torch.float32):
    from graphquant.nodes.bridge.tensor.layout import quantized_tensor

    return quantized_tensor(fmt.quantize(weight), dtype)


def same_codes(a, b):
    return torch.equal(a.view(torch.uint8), b.view(torch.uint8))


def relative(a, b):
    return ((a - b).norm() / b.norm()).item()


@pytest.mark.parametrize("fmt", FORMATS, ids=IDS)
def test_linear_is_the_formats_own_product(fmt):
    weight, x, bias = gaussian(96, 128), gaussian(5, 7, 128, seed=1), gaussian(96, seed=2)
    tensor = carried(fmt, weight)
    expected = fmt.linear(x, fmt.quantize(weight), bias)
    assert torch.equal(F.linear(x, tensor, bias), expected)
    assert torch.equal(F.linear(x, tensor, bias=bias), expected)
    assert not torch.equal(F.linear(x, tensor), expected)


@pytest.mark.parametrize("fmt", FORMATS, ids=IDS)
def test_moves_casts_and_copies_keep_every_code(fmt):
    tensor = carried(fmt, gaussian(96, 128))
    for other in (
        tensor.to(torch.bfloat16).to(torch.float32),
        tensor.to("cpu", copy=True),
        tensor.clone(),
        tensor.detach(),
        torch.empty_like(tensor).copy_(tensor),
    ):
        assert torch.equal(other.dequantize(), tensor.dequantize())
    assert tensor.to(torch.bfloat16).dequantize().dtype == torch.bfloat16


@pytest.mark.parametrize("fmt", FORMATS, ids=IDS)
def test_a_low_rank_patch_keeps_the_codes_and_loses_nothing(fmt):
    tensor = carried(fmt, gaussian(96, 128))
    delta = 1e-3 * gaussian(96, 4, seed=3) @ gaussian(4, 128, seed=4)
    patched = tensor.requantize_from_float(tensor.dequantize() + delta, stochastic_rounding=5)
    assert same_codes(patched._qdata, tensor._qdata)
    assert relative(patched.dequantize() - tensor.dequantize(), delta) < 1e-3
    x = gaussian(64, 128, seed=6)
    effect = F.linear(x, patched) - F.linear(x, tensor)
    assert relative(effect, x @ delta.T) < 1e-3


@pytest.mark.parametrize("shape", [(96, 128), (8, 16, 3, 3)], ids=["linear", "convolution"])
@pytest.mark.parametrize("fmt", [Int8(), Float8()], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_weight_that_comes_back_unchanged_keeps_its_codes(fmt, shape, dtype):
    """Dynamic VRAM loads small layers, those of a VAE too, through dequantize and requantize."""
    tensor = carried(fmt, gaussian(*shape), dtype)
    again = tensor.requantize_from_float(tensor.dequantize())
    assert same_codes(again._qdata, tensor._qdata)
    assert torch.equal(again._params.scale, tensor._params.scale)


def test_a_second_patch_starts_from_the_codes_not_from_the_first():
    tensor = carried(Int8(), gaussian(96, 128))
    original = tensor.dequantize()
    patched = tensor
    for strength in (1.0, -0.5, 2.0, 0.0):
        delta = strength * gaussian(96, 4, seed=3) @ gaussian(4, 128, seed=4)
        patched = patched.requantize_from_float(original + delta)
    assert torch.equal(patched.dequantize(), original)


@pytest.mark.parametrize("fmt", FORMATS, ids=IDS)
def test_a_patch_of_full_rank_is_rounded_again_to_nearest(fmt):
    tensor = carried(fmt, gaussian(96, 128))
    wanted = tensor.dequantize() + gaussian(96, 128, seed=3)
    patched = tensor.requantize_from_float(wanted, scale="recalculate", stochastic_rounding=9)
    assert same_codes(patched._qdata, fmt.quantize(wanted).qdata)
    assert patched._params.lora_up is None


def test_copying_a_patched_weight_into_a_staged_one_carries_the_lora_and_takes_it_off_again():
    """Dynamic VRAM copies the patched weight into the staged tensor, once a residency."""
    tensor = carried(Int8(), gaussian(96, 128))
    staged = tensor.clone()
    delta = gaussian(96, 4, seed=3) @ gaussian(4, 128, seed=4)
    staged.copy_(tensor.requantize_from_float(tensor.dequantize() + delta))
    assert relative(staged.dequantize() - tensor.dequantize(), delta) < 1e-3
    staged.copy_(tensor)
    assert torch.equal(staged.dequantize(), tensor.dequantize())


@pytest.mark.parametrize("fmt", FORMATS, ids=IDS)
def test_decomposed_linear_stays_quantized(fmt):
    """torch.compile asks for t, mm and addmm instead of linear."""
    weight = carried(fmt, gaussian(96, 128))
    x, bias = gaussian(32, 128, seed=1), gaussian(96, seed=2)
    transposed = torch.ops.aten.t.default(weight)
    assert transposed.shape == (128, 96)
    assert torch.equal(torch.ops.aten.mm.default(x, transposed), F.linear(x, weight))
    assert torch.equal(torch.ops.aten.addmm.default(bias, x, transposed), F.linear(x, weight, bias))
    assert torch.equal(transposed.dequantize(), weight.dequantize().t())


@pytest.mark.parametrize("fmt", FORMATS, ids=IDS)
@pytest.mark.parametrize(("alpha", "beta"), [(2.5, 1), (1, 0.25), (-1, 3), (0, 1), (0.5, 0)])
@pytest.mark.parametrize("full", [False, True], ids=["bias", "matrix"])
def test_addmm_honours_alpha_and_beta(fmt, alpha, beta, full):
    weight = carried(fmt, gaussian(96, 128))
    x, added = gaussian(32, 128, seed=1), gaussian(*((32, 96) if full else (96,)), seed=2)
    y = torch.addmm(added, x, weight.t(), alpha=alpha, beta=beta)
    assert torch.allclose(y, beta * added + alpha * F.linear(x, weight), atol=1e-5)


@pytest.mark.parametrize("fmt", FORMATS, ids=IDS)
def test_flatten_and_unflatten_agree_with_what_memory_management_counts(fmt):
    from comfy.memory_management import interpret_gathered_like, vram_aligned_size

    tensor = carried(fmt, gaussian(96, 128))
    buffer = torch.zeros(vram_aligned_size(tensor), dtype=torch.uint8)
    (staged,) = interpret_gathered_like([tensor], buffer)
    staged.copy_(tensor)
    assert torch.equal(staged.dequantize(), tensor.dequantize())
    assert staged._qdata.untyped_storage().data_ptr() == buffer.untyped_storage().data_ptr()


@pytest.mark.parametrize("inference", [False, True])
def test_a_copy_to_the_device_where_it_is_has_codes_of_its_own(inference):
    with torch.inference_mode(inference):
        weight = carried(Int8(), torch.ones(4, 8))
        for copied in (weight.to("cpu", torch.float32, copy=True), weight.clone()):
            assert copied._qdata.data_ptr() != weight._qdata.data_ptr()
            assert copied._params.scale.data_ptr() != weight._params.scale.data_ptr()
            assert torch.equal(copied.dequantize(), weight.dequantize())
