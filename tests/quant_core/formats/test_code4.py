"""NF4 and FP4: bitsandbytes reads them, and under its own scales they are its codes."""

import pytest
import torch

from graphquant.quant_core.codes.dynamic_code import DYNAMIC_CODE
from graphquant.quant_core.formats import Code4
from graphquant.quant_core.formats.code4 import STRETCHES
from lab.sampling import relative_l2

bnb = pytest.importorskip("bitsandbytes.functional")

every_code = pytest.mark.parametrize("code", ["nf4", "fp4"])
shapes = pytest.mark.parametrize("shape", [(64, 128), (200, 336), (7, 33), (1, 1)])


@every_code
@shapes
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("block_size", [64, 128])
def test_codes_and_scales_are_bitsandbytes_own_where_no_scale_is_searched(
    code, shape, dtype, block_size, normal
):
    weight = normal(*shape, dtype=dtype)
    ours = Code4(code, block_size).quantize_with(weight, (1.0,))
    codes, state = bnb.quantize_4bit(weight, quant_type=code, blocksize=block_size)
    assert torch.equal(ours.qdata, codes.view(-1))
    assert torch.equal(ours.scale, state.absmax)


@every_code
def test_bitsandbytes_reads_them_and_they_lose_less_than_its_own(code, normal):
    """In whole blocks a row: of others bitsandbytes' CPU kernel takes a wrong scale."""
    weight = normal(96, 320)
    codes, state = bnb.quantize_4bit(weight, quant_type=code, blocksize=64)
    own = relative_l2(bnb.dequantize_4bit(codes, state), weight)
    ours = Code4(code).quantize(weight)
    state.absmax = ours.scale
    assert torch.equal(bnb.dequantize_4bit(ours.qdata.view_as(codes), state), ours.dequantize())
    assert relative_l2(ours.dequantize(), weight) < 0.96 * own


@every_code
def test_every_block_takes_the_scale_of_least_error_among_those_tried(code, normal):
    weight = normal(64, 320)

    def errors(stretches):
        rounded = Code4(code).quantize_with(weight, stretches).dequantize()
        return (rounded - weight).view(-1, 64).norm(dim=1)

    each = torch.stack([errors((stretch,)) for stretch in STRETCHES[code]])
    torch.testing.assert_close(errors(STRETCHES[code]), each.amin(dim=0), rtol=1e-3, atol=0)
    assert (each.argmin(dim=0).bincount(minlength=3) > 0).all()


@every_code
def test_what_was_rounded_once_is_not_rounded_again(code, normal):
    once = Code4(code).quantize(normal(64, 320)).dequantize()
    assert torch.equal(Code4(code).quantize(once).dequantize(), once)


def test_the_dynamic_code_is_bitsandbytes_own():
    assert torch.equal(torch.tensor(DYNAMIC_CODE), bnb.create_dynamic_map())


@every_code
def test_double_quantization_stores_what_bitsandbytes_stores(code, normal):
    """Its CPU kernel takes the farther of two nearly equally near codes once in a thousand."""
    weight = normal(512, 1024)
    ours = Code4(code, double_quant=True).quantize_with(weight, (1.0,))
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
    single = Code4(code).quantize_with(weight, (1.0,))
    assert relative_l2(ours.dequantize(), single.dequantize()) < 0.01


@every_code
def test_an_odd_count_ends_with_the_code_of_zero(code):
    stored = Code4(code).quantize(torch.ones(1, 3))
    assert stored.qdata.shape == (2,)
    assert torch.equal(stored.dequantize(), torch.ones(1, 3))
