"""The kernels in Triton. Imported when the first of them runs: importing Triton takes a second.

Magnitudes are compared as the integers that their bits are: NaN is then the largest of all, and
stays visible. FP8 codes are decoded by integer arithmetic, because GPUs before SM 8.9 have none.
"""

from __future__ import annotations

import triton
import triton.language as tl

# Added and taken off again, it rounds a float32 below 2 ** 22 to nearest, ties to even.
_ROUNDER = tl.constexpr(12582912.0)


@triton.jit
def _magnitude_bits(values):
    return values.to(tl.int32, bitcast=True) & 0x7FFFFFFF


@triton.jit
def _round(values, LIMIT: tl.constexpr, INTEGER: tl.constexpr):
    # Comparisons with NaN are false: it stays.
    values = tl.where(values > LIMIT, LIMIT, values)
    values = tl.where(values < -LIMIT, -LIMIT, values)
    if INTEGER:
        values = (values + _ROUNDER) - _ROUNDER
    return values


@triton.jit
def quantize_rows(
    x,
    codes,
    scales,
    K,
    x_stride,
    LIMIT: tl.constexpr,
    SMALLEST: tl.constexpr,
    INTEGER: tl.constexpr,
    BLOCK: tl.constexpr,
    ONE_BLOCK: tl.constexpr,
):
    """Quantizes one row per program.

    x [M, K] of row stride x_stride; codes [M, K] and scales [M] contiguous. ONE_BLOCK: BLOCK holds
    a whole row, which is then read once.
    """
    row = tl.program_id(0).to(tl.int64)
    offsets = tl.arange(0, BLOCK)
    x += row * x_stride
    codes += row * K
    values = tl.load(x + offsets, mask=offsets < K, other=0.0).to(tl.float32)
    largest = tl.max(_magnitude_bits(values), axis=0)
    if not ONE_BLOCK:
        start = BLOCK
        while start < K:
            inside = start + offsets < K
            more = tl.load(x + start + offsets, mask=inside, other=0.0).to(tl.float32)
            largest = tl.maximum(largest, tl.max(_magnitude_bits(more), axis=0))
            start += BLOCK
    maximum = largest.to(tl.float32, bitcast=True)
    maximum = tl.where(maximum < SMALLEST, SMALLEST, maximum)
    scale = tl.div_rn(maximum, LIMIT)
    inverse = tl.div_rn(1.0, scale)
    tl.store(scales + row, scale)
    rounded = _round(values * inverse, LIMIT, INTEGER).to(codes.dtype.element_ty)
    tl.store(codes + offsets, rounded, mask=offsets < K)
    if not ONE_BLOCK:
        start = BLOCK
        while start < K:
            inside = start + offsets < K
            more = tl.load(x + start + offsets, mask=inside, other=0.0).to(tl.float32)
            rounded = _round(more * inverse, LIMIT, INTEGER).to(codes.dtype.element_ty)
            tl.store(codes + start + offsets, rounded, mask=inside)
            start += BLOCK


@triton.jit
def decode(
    codes,
    MANTISSA: tl.constexpr,
    BIAS: tl.constexpr,
    SPECIAL: tl.constexpr,
    IN_HARDWARE: tl.constexpr,
):
    """8-bit codes as float32: int8 (MANTISSA 0), or FP8 seen as uint8.

    SPECIAL: the code of infinity, or of NaN where there is no infinity. IN_HARDWARE: the GPU
    converts FP8 itself.
    """
    if MANTISSA == 0:
        return codes.to(tl.float32)
    if IN_HARDWARE:
        if MANTISSA == 3:
            return codes.to(tl.float8e4nv, bitcast=True).to(tl.float32)
        else:
            return codes.to(tl.float8e5, bitcast=True).to(tl.float32)
    bits = codes.to(tl.int32)
    magnitude = bits & 127
    normal = (magnitude << (23 - MANTISSA)) + ((127 - BIAS) << 23)
    # Not by way of float32's own subnormals, which a GPU may take for zero.
    subnormal = magnitude.to(tl.float32) * (2.0 ** (1 - BIAS - MANTISSA))
    exact = tl.where(magnitude >> MANTISSA == 0, subnormal, normal.to(tl.float32, bitcast=True))
    exact = tl.where(magnitude == SPECIAL, float("inf"), exact)
    exact = tl.where((magnitude > SPECIAL) | (magnitude == 127), float("nan"), exact)
    return tl.where(bits > 127, -exact, exact)


@triton.jit
def dequantize_scaled(
    codes,
    scales,
    out,
    K,
    MANTISSA: tl.constexpr,
    BIAS: tl.constexpr,
    SPECIAL: tl.constexpr,
    IN_HARDWARE: tl.constexpr,
    PER_ROW: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Dequantizes codes [N, K], contiguous, as ``decode`` reads them; scales [N] or []."""
    row = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    stored = tl.load(codes + row * K + columns, mask=columns < K, other=0)
    values = decode(stored, MANTISSA, BIAS, SPECIAL, IN_HARDWARE)
    scale = tl.load(scales + row) if PER_ROW else tl.load(scales)
    result = (values * scale).to(out.dtype.element_ty)
    tl.store(out + row * K + columns, result, mask=columns < K)


@triton.jit
def dequantize_int4(
    codes, scales, zero_points, out, HALF_K, GROUPS, HALF_GROUP: tl.constexpr, BLOCK: tl.constexpr
):
    """Dequantizes uint8 codes [N, HALF_K], the low nibble first; scales and zero_points [N,
    GROUPS]."""
    row = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = columns < HALF_K
    packed = tl.load(codes + row * HALF_K + columns, mask=inside, other=0).to(tl.int32)
    groups = row * GROUPS + columns // HALF_GROUP
    scale = tl.load(scales + groups, mask=inside, other=0.0).to(tl.float32)
    zero = tl.load(zero_points + groups, mask=inside, other=0.0).to(tl.float32)
    low = (packed & 15).to(tl.float32) * scale + zero
    high = (packed >> 4).to(tl.float32) * scale + zero
    both = tl.interleave(low, high).to(out.dtype.element_ty)
    places = tl.program_id(1) * BLOCK * 2 + tl.arange(0, 2 * BLOCK)
    tl.store(out + row * HALF_K * 2 + places, both, mask=places < 2 * HALF_K)


@triton.jit
def scale_products(
    products,
    row_scales,
    column_scales,
    bias,
    out,
    N,
    PER_COLUMN: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Scales products, int32 or float32 [M, N], contiguous, by row_scales [M] and column_scales [N]
    or []."""
    row = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = columns < N
    values = tl.load(products + row * N + columns, mask=inside, other=0).to(tl.float32)
    values *= tl.load(row_scales + row)
    if PER_COLUMN:
        values *= tl.load(column_scales + columns, mask=inside, other=0.0)
    else:
        values *= tl.load(column_scales)
    if HAS_BIAS:
        values += tl.load(bias + columns, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + row * N + columns, values.to(out.dtype.element_ty), mask=inside)
