"""The format of layerwise casting: what a power-of-two scale keeps that others do not."""

import pytest
import torch

from graphquant.quant_core.formats import CastFloat8, Float8, format_from_dict

DTYPES = ["float8_e4m3fn", "float8_e5m2"]


def gaussian(sigma, seed=0):
    return torch.randn(512, 512, generator=torch.Generator().manual_seed(seed)) * sigma


def error(fmt, weight):
    return ((fmt.quantize(weight).dequantize() - weight).norm() / weight.norm()).item()


def every_value(dtype):
    """All finite values of an FP8 dtype, as float32 [2, n]."""
    codes = torch.arange(256, dtype=torch.uint8).view(getattr(torch, dtype)).float()
    return codes[codes.isfinite()].view(2, -1)


@pytest.mark.parametrize(("sigma", "plain"), [(0.02, 0.033), (0.002, 0.282), (0.0005, 0.92)])
def test_a_scale_saves_small_weights_that_a_plain_cast_crushes(sigma, plain):
    weight = gaussian(sigma)
    assert error(CastFloat8(scaled=False), weight) == pytest.approx(plain, rel=0.03)
    assert error(CastFloat8(), weight) == pytest.approx(0.0265, rel=0.01)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_power_of_two_costs_under_one_percent_more_error_than_the_best_scale(dtype):
    best = error(Float8(dtype, "per-tensor"), gaussian(0.02))
    assert error(CastFloat8(dtype), gaussian(0.02)) < 1.01 * best


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sigma", [30.0, 0.02, 1e-6])
def test_the_scale_is_the_least_power_of_two_that_fits(dtype, sigma):
    weight = gaussian(sigma)
    stored = CastFloat8(dtype).quantize(weight)
    assert torch.frexp(stored.scale).mantissa == 0.5
    assert stored.scale.dtype == torch.float32
    limit = torch.finfo(getattr(torch, dtype)).max
    assert limit * stored.scale / 2 < weight.abs().max() <= limit * stored.scale


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_bfloat16_copy_is_the_float32_one(dtype):
    stored = CastFloat8(dtype).quantize(gaussian(0.02))
    assert torch.equal(stored.dequantize(torch.bfloat16).float(), stored.dequantize(torch.float32))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("power", [0, -7, -20])
def test_what_fp8_can_hold_comes_back_bit_by_bit(dtype, power):
    weight = every_value(dtype) * 2.0**power
    assert torch.equal(CastFloat8(dtype).quantize(weight).dequantize(), weight)


@pytest.mark.parametrize("scaled", [True, False])
def test_casting_again_gives_the_same_codes(scaled):
    fmt = CastFloat8(scaled=scaled)
    once = fmt.quantize(gaussian(0.002))
    again = fmt.quantize(once.dequantize())
    assert torch.equal(again.qdata.view(torch.uint8), once.qdata.view(torch.uint8))
    assert again.scale == once.scale


def test_a_plain_cast_saturates_where_torch_before_2_14_gives_nan():
    weight = torch.tensor([[1000.0, -1000.0]])
    assert CastFloat8(scaled=False).quantize(weight).dequantize().tolist() == [[448.0, -448.0]]


def test_zeros_stay_zero_and_the_format_survives_its_dict():
    fmt = CastFloat8("float8_e5m2", scaled=False)
    assert format_from_dict(fmt.to_dict()) == fmt
    assert CastFloat8().quantize(torch.zeros(4, 4)).dequantize().abs().max() == 0
