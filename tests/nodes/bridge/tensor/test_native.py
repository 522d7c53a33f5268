"""NVFP4 and MXFP8 are handed to ComfyUI's stock layouts where those multiply them.

No GPU that does is here: ``tensor_cores`` multiplies what the stock layouts hand to its kernels, so
what is shown is that weights, activations, scales and bias reach them as they should.
"""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from graphquant.quant_core.formats import MXFP8, NVFP4, Float8, Int8, Int8ConvRot
from graphquant.quant_core.formats.rotated_groups import rotated_groups
from lab.sampling import relative_l2

pytestmark = pytest.mark.usefixtures("comfy", "inference_mode")

block_formats = pytest.mark.parametrize("fmt", [NVFP4("nvfp4"), MXFP8("mxfp8")], ids=str)


INT8 = [
    Int8(),
    Int8("per-tensor"),
    Int8(activations="int8"),
    Int8("per-tensor", "int8"),
    Int8ConvRot(),
    Int8ConvRot(64, "int8"),
    Int8ConvRot(activations="int8"),
]
GROUPS = [rotated_groups(4), rotated_groups(6), rotated_groups(4, 64).weight_only()]


def gaussian(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def tensor_cores(monkeypatch):
    """Kernels of block formats for the CPU, whose PyTorch has none: they multiply what is stored,
    padding and all, and refuse what a GPU's refuse."""
    import comfy_kitchen

    def multiply(a, b, bias, dtype):
        if bias is not None and len(bias) != len(b):
            raise ValueError(f"Bias must be size {len(b)} but got {len(bias)}")
        return F.linear(a, b, bias).to(dtype)

    def nvfp4(
        a, b, tensor_scale_a, tensor_scale_b, block_scale_a, block_scale_b, bias=None, *, out_dtype
    ):
        rows = comfy_kitchen.dequantize_nvfp4(a, tensor_scale_a, block_scale_a, torch.float32)
        weight = comfy_kitchen.dequantize_nvfp4(b, tensor_scale_b, block_scale_b, torch.float32)
        return multiply(rows, weight, bias, out_dtype)

    def mxfp8(a, b, block_scale_a, block_scale_b, bias=None, out_dtype=None):
        read = comfy_kitchen.dequantize_mxfp8
        rows = read(a, block_scale_a, torch.float32)
        return multiply(rows, read(b, block_scale_b, torch.float32), bias, out_dtype)

    monkeypatch.setattr(comfy_kitchen, "scaled_mm_nvfp4", nvfp4)
    monkeypatch.setattr(comfy_kitchen, "scaled_mm_mxfp8", mxfp8)


@pytest.fixture
def native(monkeypatch, tensor_cores):
    """Has every device multiply block formats, as Blackwell does."""
    from graphquant.nodes.bridge.tensor import operators

    monkeypatch.setattr(operators, "is_native", lambda fmt, x: fmt.activations is not None)


def rounded_tokens(fmt, x):
    """As comfy-kitchen rounds activations, which takes no time to search a scale."""
    stored = fmt.quantize(x)
    if isinstance(fmt, NVFP4):
        stored = fmt.quantize_with(x, stored.scale_2, (1.0,))
    return stored.dequantize()


@pytest.mark.usefixtures("tensor_cores")
@block_formats
@pytest.mark.parametrize("shape", [(96, 128), (40, 72), (24, 256), (100, 40)])
def test_the_product_is_that_of_rounded_weights_and_rounded_activations(fmt, shape):
    from graphquant.nodes.bridge.tensor.native import native_linear

    weight, x, bias = gaussian(*shape), gaussian(2, 9, shape[1], seed=1), gaussian(shape[0], seed=2)
    stored = fmt.quantize(weight)
    found = native_linear(x, stored, bias)
    assert (found.shape, found.dtype) == ((2, 9, shape[0]), torch.float32)
    tokens = rounded_tokens(fmt, x.reshape(18, -1))
    expected = F.linear(tokens, stored.dequantize(), bias).view(2, 9, -1)
    assert relative_l2(found, expected) < 1e-5
    weight_only = F.linear(x, stored.dequantize(), bias)
    assert (
        relative_l2(found, F.linear(x, weight, bias))
        / relative_l2(weight_only, F.linear(x, weight, bias))
        > 1.2
    )


@pytest.mark.usefixtures("tensor_cores")
@block_formats
def test_tokens_that_are_all_zeros_give_the_bias(fmt):
    from graphquant.nodes.bridge.tensor.native import native_linear

    bias = gaussian(96)
    y = native_linear(torch.zeros(4, 128), fmt.quantize(gaussian(96, 128)), bias)
    assert torch.equal(y, bias.expand(4, 96))


@block_formats
def test_a_layer_uses_it_and_adds_its_lora(fmt, native):
    from graphquant.nodes.bridge.tensor.layout import quantized_tensor
    from graphquant.nodes.bridge.tensor.native import native_linear

    x, stored = gaussian(16, 128, seed=1), fmt.quantize(gaussian(96, 128))
    tensor = quantized_tensor(stored, torch.float32)
    assert torch.equal(F.linear(x, tensor), native_linear(x, stored, None))
    delta = gaussian(96, 4, seed=3) @ gaussian(4, 128, seed=4)
    patched = tensor.requantize_from_float(tensor.dequantize() + delta)
    effect = F.linear(x, patched) - F.linear(x, tensor)
    assert relative_l2(effect, F.linear(x, delta)) < 1e-3


def test_without_such_a_device_or_with_weights_alone_it_is_not_used():
    from graphquant.nodes.bridge.tensor.native import is_native

    for fmt in (NVFP4("nvfp4"), MXFP8("mxfp8"), NVFP4(), *INT8):
        assert not is_native(fmt, torch.ones(4, 64))
    on_a_gpu = SimpleNamespace(device=torch.device("cuda"))
    assert not is_native(NVFP4(), on_a_gpu)
    assert not is_native(Float8(), on_a_gpu)


@pytest.mark.parametrize("fmt", INT8, ids=str)
@pytest.mark.parametrize("bias", [True, False])
def test_comfy_kitchens_int8_product_is_ours(fmt, bias):
    from graphquant.nodes.bridge.tensor.native import native_linear

    stored, x = fmt.quantize(gaussian(96, 512)), gaussian(2, 9, 512, seed=1)
    x[..., 5] *= 30
    offset = gaussian(96, seed=2) if bias else None
    found = native_linear(x, stored, offset)
    assert (found.shape, found.dtype) == ((2, 9, 96), torch.float32)
    assert relative_l2(found, fmt.linear(x, stored, offset)) < 1e-5


@pytest.mark.parametrize("fmt", GROUPS, ids=str)
@pytest.mark.parametrize("bias", [True, False])
def test_comfy_kitchens_product_of_rotated_groups_is_ours(fmt, bias):
    """Where comfy-kitchen has them: W4A8 from 0.2.31, W6A8 from 0.2.36."""
    from comfy.quant_ops import register_layout_class

    from graphquant.nodes.bridge.tensor.native import native_linear

    module = pytest.importorskip("comfy_kitchen.tensor.w4a8_int8")
    if fmt.bits == 6 and not hasattr(module.AsymW4A8Int8Layout, "bits"):
        pytest.skip("this comfy-kitchen has no W6A8")
    register_layout_class("AsymW4A8Int8Layout", module.AsymW4A8Int8Layout)
    stored, x = fmt.quantize(gaussian(96, 512)), gaussian(2, 9, 512, seed=1)
    offset = gaussian(96, seed=2) if bias else None
    assert relative_l2(native_linear(x, stored, offset), fmt.linear(x, stored, offset)) < 1e-5


def test_the_report_says_who_multiplies(monkeypatch):
    from graphquant.nodes.bridge.tensor import contest
    from graphquant.nodes.bridge.tensor.native import native_kernel

    gpu = torch.device("cuda")
    won = {Int8(activations="int8"): True, Int8(): True, Int8ConvRot(): False}
    monkeypatch.setattr(contest, "wins", lambda fmt, device, theirs: won[fmt])
    assert native_kernel(Int8(activations="int8"), gpu) == (
        "int8 x int8 matmul in ComfyUI (comfy-kitchen)"
    )
    assert native_kernel(Int8(), gpu) == "dequantize + matmul in ComfyUI (comfy-kitchen)"
    assert native_kernel(Int8ConvRot(), gpu) is None
    assert native_kernel(Int8(), torch.device("cpu")) is native_kernel(Float8(), gpu) is None
