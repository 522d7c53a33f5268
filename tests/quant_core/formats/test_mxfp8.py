"""MXFP8: comfy-kitchen's tensors, so that ComfyUI's stock layout reads them."""

import pytest
import torch

from graphquant.quant_core.formats import MXFP8


@pytest.mark.parametrize("shape", [(128, 256), (200, 336), (130, 48), (1, 17)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_tensors_are_comfy_kitchens(shape, dtype, normal):
    eager = pytest.importorskip("comfy_kitchen.backends.eager.quantization")
    weight = normal(*shape, dtype=dtype)
    weight[0, :16] = 0
    ours = MXFP8().quantize(weight)
    codes, scales = eager.quantize_mxfp8(weight, pad_32x=True)
    assert torch.equal(ours.qdata.view(torch.uint8), codes.view(torch.uint8))
    assert torch.equal(ours.scale, scales.view(torch.uint8))
    theirs = eager.dequantize_mxfp8(codes, scales, torch.float32)
    assert torch.equal(ours.dequantize(torch.float32), theirs[: shape[0], : shape[1]])


@pytest.mark.parametrize("power", [-100, -20, 0, 20, 100])
def test_scales_are_powers_of_two_that_bring_a_block_within_range(power):
    row = torch.tensor([[448.0, -224.0, *[1.0] * 30, 449.0, *[0.0] * 31]]) * 2.0**power
    stored = MXFP8().quantize(row)
    assert stored.scale[0, :2].tolist() == [127 + power, 128 + power]
    assert torch.equal(stored.dequantize()[0, :32], row[0, :32])


def test_every_scale_is_two_to_its_code():
    from graphquant.quant_core.formats.mxfp8 import _value

    codes = torch.arange(255, dtype=torch.uint8)
    assert _value(codes).tolist() == [2.0 ** (code - 127) for code in range(255)]
