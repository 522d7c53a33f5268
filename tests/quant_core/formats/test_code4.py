"""NF4 and FP4: bitsandbytes' own codes and scales."""

import pytest
import torch

from graphquant.quant_core.formats import Code4
from graphquant.quant_core.formats.dynamic_code import DYNAMIC_CODE
from lab.sampling import relative_l2

bnb = pytest.importorskip("bitsandbytes.functional")

every_code = pytest.mark.parametrize("code", ["nf4", "fp4"])
shapes = pytest.mark.parametrize("shape", [(64, 128), (200, 336), (7, 33), (1, 1)])


@every_code
@shapes
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("block_size", [64, 128])
def test_codes_and_scales_are_bitsandbytes_own(code, shape, dtype, block_size, normal):
    weight = normal(*shape, dtype=dtype)
    ours = Code4(code, block_size).quantize(weight)
    codes, state = bnb.quantize_4bit(weight, quant_type=code, blocksize=block_size)
    assert torch.equal(ours.qdata, codes.view(-1))
    assert torch.equal(ours.scale, state.absmax)


@every_code
def test_values_are_bitsandbytes_own(code, normal):
    """In whole blocks a row: of others bitsandbytes' CPU kernel takes a wrong scale."""
    weight = normal(96, 320)
    codes, state = bnb.quantize_4bit(weight, quant_type=code, blocksize=64)
    expected = bnb.dequantize_4bit(codes, state)
    assert torch.equal(Code4(code).quantize(weight).dequantize(), expected)


def test_the_dynamic_code_is_bitsandbytes_own():
    assert torch.equal(torch.tensor(DYNAMIC_CODE), bnb.create_dynamic_map())


@every_code
def test_double_quantization_stores_what_bitsandbytes_stores(code, normal):
    """Its CPU kernel takes the farther of two nearly equally near codes once in a thousand."""
    weight = normal(512, 1024)
    ours = Code4(code, double_quant=True).quantize(weight)
    codes, state = bnb.quantize_4bit(
        weight, quant_type=code, blocksize=64, compress_statistics=True
    )
    assert torch.equal(ours.qdata, codes.view(-1))
    assert torch.equal(ours.zero_point, state.offset)
    assert torch.equal(ours.scale_2, state.state2.absmax)
    differing = ours.scale != state.absmax
    assert differing.float().mean() < 0.003
    steps = (ours.scale.int() - state.absmax.int()).abs()
    assert steps.max() <= 1
    single = Code4(code).quantize(weight)
    assert relative_l2(ours.dequantize(), single.dequantize()) < 0.01


@every_code
def test_an_odd_count_ends_with_the_code_of_zero(code):
    stored = Code4(code).quantize(torch.ones(1, 3))
    assert stored.qdata.shape == (2,)
    assert torch.equal(stored.dequantize(), torch.ones(1, 3))
