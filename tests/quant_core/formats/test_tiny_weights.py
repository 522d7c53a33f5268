"""Weights of any magnitude that float32 holds lose as little as usual ones."""

import pytest

from graphquant.quant_core.formats import Float8, Int4, Int8
from lab.formats import EACH_KIND
from lab.sampling import relative_l2


@pytest.mark.parametrize("std", [1e-6, 1e-11, 1e-17, 1e-22])
@pytest.mark.parametrize(
    "fmt", [Int8(), Float8(), Float8("float8_e5m2"), Int4(64), *EACH_KIND], ids=str
)
def test_no_floor_under_a_scale_crushes_tiny_weights(fmt, std, normal):
    weight = normal(48, 128, std=1.0)
    usual = relative_l2(fmt.quantize(weight * 0.02).dequantize(), weight * 0.02)
    error = relative_l2(fmt.quantize(weight * std).dequantize() / std, weight)
    assert error < 1.1 * usual
