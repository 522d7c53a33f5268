"""NVFP4: comfy-kitchen's tensors, so that ComfyUI's stock layout reads them."""

import pytest
import torch

from graphquant.quant_core.formats import NVFP4
from lab.sampling import relative_l2


@pytest.mark.parametrize("shape", [(128, 256), (200, 336), (130, 48), (1, 17)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_tensors_are_comfy_kitchens_under_the_same_tensor_scale(shape, dtype, normal):
    eager = pytest.importorskip("comfy_kitchen.backends.eager.quantization")
    weight = normal(*shape, dtype=dtype)
    weight[0, :16] = 0
    ours = NVFP4().quantize(weight)
    codes, scales = eager.quantize_nvfp4(weight, ours.scale_2, pad_16x=True)
    assert torch.equal(ours.qdata, codes)
    assert torch.equal(ours.scale.view(torch.uint8), scales.view(torch.uint8))
    theirs = eager.dequantize_nvfp4(codes, ours.scale_2, scales, torch.float32)
    assert torch.equal(ours.dequantize(torch.float32), theirs[: shape[0], : shape[1]])


def test_the_tensor_scale_brings_the_largest_block_scale_to_the_largest_code(normal):
    weight = normal(64, 64)
    stored = NVFP4().quantize(weight)
    assert stored.scale_2 == weight.abs().max() / (6 * 448)
    assert stored.scale.float().max() == 448


def test_without_a_tensor_scale_small_weights_would_be_lost(normal):
    weight = normal(64, 64, std=2e-4)
    assert relative_l2(NVFP4().quantize(weight).dequantize(), weight) < 0.1
    unscaled = NVFP4().quantize_with(weight, torch.tensor(1.0))
    assert relative_l2(unscaled.dequantize(), weight) > 0.3


def test_torchao_loses_as_much(normal):
    prototype = pytest.importorskip("torchao.prototype.mx_formats.nvfp4_tensor")
    weight = normal(128, 512)
    largest = prototype.per_tensor_amax_to_scale(weight.abs().max())
    theirs = prototype.NVFP4Tensor.to_nvfp4(weight, per_tensor_scale=largest)
    expected = relative_l2(theirs.dequantize(torch.float32), weight)
    error = relative_l2(NVFP4().quantize(weight).dequantize(), weight)
    assert error == pytest.approx(expected, rel=0.01)
