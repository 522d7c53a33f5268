"""fpX_eAmB weights: a scale a row, torchao's codes, packed."""

import pytest
import torch

from graphquant.quant_core.codes.bits import unpack
from graphquant.quant_core.formats import FloatX

LAYOUTS = [(e, bits - 1 - e) for bits in range(3, 8) for e in range(1, bits)]


@pytest.mark.parametrize(("exponent", "mantissa"), LAYOUTS)
def test_codes_are_torchaos_under_the_same_scale(exponent, mantissa, normal):
    utils = pytest.importorskip("torchao.prototype.custom_fp_utils")
    weight = normal(16, 333)
    fmt = FloatX(exponent, mantissa)
    stored = fmt.quantize(weight)
    codes = unpack(stored.qdata, fmt.bits, 333)
    assert torch.equal(
        codes, utils._f32_to_floatx_unpacked(weight / stored.scale, exponent, mantissa)
    )
    assert stored.qdata.shape == (16, 42 * fmt.bits)


@pytest.mark.parametrize(("exponent", "mantissa"), LAYOUTS)
def test_the_largest_magnitude_of_a_row_is_kept(exponent, mantissa, normal):
    weight = normal(16, 64)
    rounded = FloatX(exponent, mantissa).quantize(weight).dequantize()
    places = weight.abs().argmax(dim=1, keepdim=True)
    assert torch.allclose(rounded.gather(1, places), weight.gather(1, places), rtol=1e-6)


def test_what_a_row_can_hold_comes_back_bit_by_bit():
    row = torch.tensor([[28.0, -28.0, 0.0625, 3.5, 0.0, 1.25]])
    assert torch.equal(FloatX(3, 2).quantize(row).dequantize(), row)
