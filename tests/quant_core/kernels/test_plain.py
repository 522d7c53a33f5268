"""The plain kernels, which every other way of computing them is compared with."""

import pytest
import torch

from graphquant.quant_core.kernels import blocks, plain

E4M3, E5M2 = torch.float8_e4m3fn, torch.float8_e5m2
FLOATS = (torch.float32, torch.bfloat16, torch.float16)


@pytest.fixture(params=["one block", "many blocks"])
def in_blocks(request, monkeypatch):
    if request.param == "many blocks":
        monkeypatch.setattr(blocks, "_CPU_BLOCK", 300)


@pytest.mark.parametrize("x_dtype", FLOATS)
@pytest.mark.parametrize("dtype", [torch.int8, E4M3])
def test_a_rows_largest_magnitude_becomes_the_largest_code(dtype, x_dtype, normal, in_blocks):
    x = normal(7, 96, std=3.0).to(x_dtype)
    codes, scale = plain.quantize_rows(x, dtype)
    assert (codes.dtype, scale.dtype, scale.shape) == (dtype, torch.float32, (7, 1))
    assert torch.equal(codes.float().abs().amax(1), torch.full((7,), plain.largest_code(dtype)))
    step = scale if dtype == torch.int8 else scale * codes.float().abs().clamp(2**-6) / 8
    assert ((codes.float() * scale - x.float()).abs() <= 0.501 * step).all()


@pytest.mark.parametrize("dtype", [torch.int8, E4M3])
def test_zeros_stay_zeros_and_what_is_not_finite_stays_visible(dtype, in_blocks):
    x = torch.ones(4, 80)
    x[1], x[2, 5], x[3, 6] = 0, float("nan"), float("inf")
    codes, scale = plain.quantize_rows(x, dtype)
    rows = codes.float() * scale
    assert torch.equal(rows[1], torch.zeros(80)) and torch.allclose(rows[0], torch.ones(80))
    assert not rows[2].isfinite().all() and not rows[3].isfinite().all()
    assert scale[:2].isfinite().all()


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("codes_dtype", [torch.int8, E4M3, E5M2])
@pytest.mark.parametrize("shape", [(9, 40), (6, 5, 3, 3)])
def test_dequantizing_rounds_once(dtype, codes_dtype, shape, normal, in_blocks):
    codes = normal(*shape, std=20.0).to(codes_dtype)
    for scale in (normal(shape[0], std=1.0).view(-1, *[1] * (len(shape) - 1)), torch.tensor(0.37)):
        expected = (codes.float() * scale).to(dtype)
        assert torch.equal(plain.dequantize_scaled(codes, scale, dtype), expected)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("group", [32, 64, 128])
def test_an_int4_weight_is_code_times_scale_plus_zero_point(dtype, group, normal, in_blocks):
    codes = torch.randint(0, 16, (5, 384), generator=torch.Generator().manual_seed(0))
    packed = (codes[:, ::2] | codes[:, 1::2] << 4).to(torch.uint8)
    scale, zero = normal(5, 384 // group).bfloat16(), normal(5, 384 // group, seed=1).bfloat16()
    groups = codes.view(5, -1, group).float() * scale.float()[..., None] + zero.float()[..., None]
    result = plain.dequantize_int4(packed, scale, zero, group, dtype)
    assert torch.equal(result, groups.view(5, 384).to(dtype))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("bias", [None, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("columns", [1, 48])
def test_products_are_scaled_by_row_and_column(dtype, bias, columns, normal, in_blocks):
    products = (normal(9, 48, std=1000.0)).to(torch.int32)
    row, column = normal(9, 1, std=1.0).abs(), normal(1, columns, std=1.0).abs()
    bias = None if bias is None else normal(48, std=100.0, seed=3).to(bias)
    expected = products.float() * row * column + (0 if bias is None else bias.float())
    for given in (products, products.float()):
        result = plain.scale_products(given, row, column, bias, dtype)
        assert torch.equal(result, expected.to(dtype))
    assert torch.equal(products.float(), given)
