"""Activations on their way into 8-bit products, and products on their way out.

Magnitudes are compared as the integers that their bits are: NaN is then the largest of all, and
stays visible.

Tested by tests/quant_core/kernels/test_triton.py.
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
def _read(x, places, inside, K, FIRST: tl.constexpr):
    """float32 values of a row at ``places``, after the function that comes FIRST: "", "gelu" (its
    tanh form), or "swiglu", silu(row[:K]) * row[K:]."""
    values = tl.load(x + places, mask=inside, other=0.0).to(tl.float32)
    if FIRST == "gelu":
        inner = 0.7978845608028654 * (values + 0.044715 * values * values * values)
        values = values * tl.sigmoid(2 * inner)
    if FIRST == "swiglu":
        factor = tl.load(x + K + places, mask=inside, other=0.0).to(tl.float32)
        values = values * tl.sigmoid(values) * factor
    return values


@triton.jit
def quantize_rows(
    x,
    codes,
    scales,
    K,
    x_stride,
    FIRST: tl.constexpr,
    LIMIT: tl.constexpr,
    SMALLEST: tl.constexpr,
    INTEGER: tl.constexpr,
    BLOCK: tl.constexpr,
    ONE_BLOCK: tl.constexpr,
):
    """One program a row. x of row stride x_stride; codes [M, K], scales [M] contiguous. FIRST: see
    ``_read``. ONE_BLOCK: BLOCK holds a row, which is then read once."""
    row = tl.program_id(0).to(tl.int64)
    offsets = tl.arange(0, BLOCK)
    x += row * x_stride
    codes += row * K
    values = _read(x, offsets, offsets < K, K, FIRST)
    largest = tl.max(_magnitude_bits(values), axis=0)
    if not ONE_BLOCK:
        start = BLOCK
        while start < K:
            more = _read(x, start + offsets, start + offsets < K, K, FIRST)
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
            more = _read(x, start + offsets, inside, K, FIRST)
            rounded = _round(more * inverse, LIMIT, INTEGER).to(codes.dtype.element_ty)
            tl.store(codes + start + offsets, rounded, mask=inside)
            start += BLOCK


@triton.jit
def quantize_rows_low(
    x,
    codes,
    scales,
    down,
    low,
    M,
    K,
    R,
    x_stride,
    LIMIT: tl.constexpr,
    SMALLEST: tl.constexpr,
    INTEGER: tl.constexpr,
    RANK: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """``quantize_rows`` and a LoRA's first product by one reading of x from memory: low [M, R] is
    x @ down.T with down [R, K], contiguous; RANK is a power of two from R on. The second reading,
    which writes codes, finds x in the cache."""
    rows = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    inside = rows < M
    places, ranks = tl.arange(0, BLOCK_K), tl.arange(0, RANK)
    x += rows.to(tl.int64)[:, None] * x_stride
    codes += rows.to(tl.int64)[:, None] * K
    largest = tl.zeros((BLOCK_M,), dtype=tl.int32)
    product = tl.zeros((BLOCK_M, RANK), dtype=tl.float32)
    for start in range(0, K, BLOCK_K):
        k = start + places
        values = tl.load(x + k[None, :], mask=inside[:, None] & (k < K)[None, :], other=0.0)
        bits = _magnitude_bits(values.to(tl.float32))
        largest = tl.maximum(largest, tl.max(bits, axis=1))
        mask = (k < K)[:, None] & (ranks < R)[None, :]
        factor = tl.load(down + ranks[None, :] * K + k[:, None], mask=mask, other=0.0)
        product = tl.dot(values, factor, product, input_precision="ieee")
    place = rows.to(tl.int64)[:, None] * R + ranks[None, :]
    stored = inside[:, None] & (ranks < R)[None, :]
    tl.store(low + place, product.to(low.dtype.element_ty), mask=stored)
    maximum = largest.to(tl.float32, bitcast=True)
    maximum = tl.where(maximum < SMALLEST, SMALLEST, maximum)
    scale = tl.div_rn(maximum, LIMIT)
    tl.store(scales + rows, scale, mask=inside)
    inverse = tl.div_rn(1.0, scale)
    for start in range(0, K, BLOCK_K):
        k = start + places
        mask = inside[:, None] & (k < K)[None, :]
        values = tl.load(x + k[None, :], mask=mask, other=0.0).to(tl.float32)
        rounded = _round(values * inverse[:, None], LIMIT, INTEGER)
        tl.store(codes + k[None, :], rounded.to(codes.dtype.element_ty), mask=mask)


@triton.jit
def quantize_by(x, codes, scale, COUNT, LIMIT: tl.constexpr, BLOCK: tl.constexpr):
    """x and codes: COUNT elements, contiguous. scale: float32 []."""
    offsets = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    values = tl.load(x + offsets, mask=offsets < COUNT, other=0.0).to(tl.float32)
    rounded = _round(tl.div_rn(values, tl.load(scale)), LIMIT, False).to(codes.dtype.element_ty)
    tl.store(codes + offsets, rounded, mask=offsets < COUNT)


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
    """products: int32 or floating [M, N], contiguous; row_scales [M]; column_scales [N] or []."""
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
