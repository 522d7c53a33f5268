"""A format says of a shape what quantizing a weight of it does."""

import pytest
import torch

from graphquant.quant_core.formats import Int8
from lab.formats import EACH_KIND


@pytest.mark.parametrize("columns", [256, 259, 320])
@pytest.mark.parametrize("fmt", [Int8(), *EACH_KIND], ids=str)
def test_what_fits_can_be_quantized(fmt, columns):
    weight = torch.randn(8, columns)
    if fmt.fits((8, columns)):
        assert fmt.quantize(weight).dequantize().shape == (8, columns)
    else:
        assert columns != 256


def test_a_convolution_s_columns_are_all_its_inputs():
    assert EACH_KIND[0].fits((8, 16, 3, 4)) is (16 * 3 * 4 % 64 == 0)
