"""NVFP4: comfy-kitchen's tensors, so that ComfyUI's stock layout reads them."""

import pytest
import torch

from graphquant.quant_core.formats import NVFP4
from graphquant.quant_core.formats.nvfp4 import STRETCHES
from lab.sampling import relative_l2


@pytest.mark.parametrize("shape", [(128, 256), (200, 336), (130, 48), (1, 17)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_tensors_are_comfy_kitchens_where_no_scale_is_searched(shape, dtype, normal):
    eager = pytest.importorskip("comfy_kitchen.backends.eager.quantization")
    weight = normal(*shape, dtype=dtype)
    weight[0, :16] = 0
    ours = NVFP4().quantize_with(weight, NVFP4().quantize(weight).scale_2, (1.0,))
    codes, scales = eager.quantize_nvfp4(weight, ours.scale_2, pad_16x=True)
    assert torch.equal(ours.qdata, codes)
    assert torch.equal(ours.scale.view(torch.uint8), scales.view(torch.uint8))


@pytest.mark.parametrize("shape", [(128, 256), (200, 336)])
def test_comfy_kitchen_reads_them_and_they_lose_less_than_its_own(shape, normal):
    eager = pytest.importorskip("comfy_kitchen.backends.eager.quantization")
    weight = normal(*shape)
    weight[0, :16] = 0
    ours = NVFP4().quantize(weight)

    def read(codes, scales):
        values = eager.dequantize_nvfp4(codes, ours.scale_2, scales, torch.float32)
        return values[: shape[0], : shape[1]]

    assert torch.equal(ours.dequantize(torch.float32), read(ours.qdata, ours.scale))
    own = read(*eager.quantize_nvfp4(weight, ours.scale_2, pad_16x=True))
    assert relative_l2(ours.dequantize(), weight) < 0.95 * relative_l2(own, weight)


def test_every_block_takes_the_scale_of_least_error_among_those_tried(normal):
    weight = normal(64, 160)
    scale_2 = NVFP4().quantize(weight).scale_2

    def errors(stretches):
        rounded = NVFP4().quantize_with(weight, scale_2, stretches).dequantize()
        return (rounded - weight).unflatten(1, (-1, 16)).norm(dim=-1)

    each = torch.stack([errors((stretch,)) for stretch in STRETCHES])
    torch.testing.assert_close(errors(STRETCHES), each.amin(dim=0))
    assert (each.argmin(dim=0).flatten().bincount(minlength=3) > 0).all()


def test_what_was_rounded_once_is_not_rounded_again(normal):
    once = NVFP4().quantize(normal(64, 160)).dequantize()
    assert torch.equal(NVFP4().quantize(once).dequantize(), once)


def test_the_tensor_scale_brings_the_largest_block_scale_to_the_largest_code(normal):
    weight = normal(64, 64)
    stored = NVFP4().quantize(weight)
    assert stored.scale_2 == weight.abs().max() / (6 * 448)
    assert NVFP4().quantize_with(weight, stored.scale_2, (1.0,)).scale.float().max() == 448


def test_without_a_tensor_scale_small_weights_would_be_lost(normal):
    weight = normal(64, 64, std=2e-4)
    assert relative_l2(NVFP4().quantize(weight).dequantize(), weight) < 0.1
    unscaled = NVFP4().quantize_with(weight, torch.tensor(1.0))
    assert relative_l2(unscaled.dequantize(), weight) > 0.3


def test_torchao_loses_as_much_as_without_the_search(normal):
    prototype = pytest.importorskip("torchao.prototype.mx_formats.nvfp4_tensor")
    weight = normal(128, 512)
    largest = prototype.per_tensor_amax_to_scale(weight.abs().max())
    theirs = prototype.NVFP4Tensor.to_nvfp4(weight, per_tensor_scale=largest)
    expected = relative_l2(theirs.dequantize(torch.float32), weight)
    ours = NVFP4().quantize(weight)
    plain = NVFP4().quantize_with(weight, ours.scale_2, (1.0,))
    assert relative_l2(plain.dequantize(), weight) == pytest.approx(expected, rel=0.01)
    assert relative_l2(ours.dequantize(), weight) < 0.9 * expected
