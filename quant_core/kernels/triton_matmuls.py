"""The products in Triton: of few rows by a weight as it is stored, and of INT8 by INT8."""

from __future__ import annotations

import triton
import triton.language as tl

from .triton_kernels import decode


@triton.jit
def store_tile(tile, bias, out, rows, columns, M, N, HAS_BIAS: tl.constexpr):
    """Writes ``tile`` plus the bias of its columns into ``out`` [M, N]."""
    inside = columns < N
    if HAS_BIAS:
        tile += tl.load(bias + columns, mask=inside, other=0.0).to(tl.float32)[None, :]
    target = out + rows.to(tl.int64)[:, None] * N + columns[None, :]
    mask = (rows < M)[:, None] & inside[None, :]
    tl.store(target, tile.to(out.dtype.element_ty), mask=mask)


@triton.jit
def int4_linear(
    x,
    codes,
    scales,
    zero_points,
    bias,
    out,
    M,
    N,
    HALF_K,
    GROUPS: tl.constexpr,
    HALF_GROUP: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """Multiplies M rows of x, at most BLOCK_M, into BLOCK_N columns of the result.

    A step takes one group along K: its even places, which are low nibbles, then its odd ones.
    """
    rows = tl.arange(0, BLOCK_M)
    columns = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    places = tl.arange(0, HALF_GROUP)
    row_inside, inside = rows < M, columns < N
    wide = columns.to(tl.int64)
    total = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
    for group in range(GROUPS):
        k = group * HALF_GROUP + places
        packed = tl.load(
            codes + wide[None, :] * HALF_K + k[:, None], mask=inside[None, :], other=0
        ).to(tl.int32)
        scale = tl.load(scales + wide * GROUPS + group, mask=inside, other=0.0).to(tl.float32)
        zero = tl.load(zero_points + wide * GROUPS + group, mask=inside, other=0.0).to(tl.float32)
        low = (packed & 15).to(tl.float32) * scale[None, :] + zero[None, :]
        high = (packed >> 4).to(tl.float32) * scale[None, :] + zero[None, :]
        pair = x + rows[:, None] * (2 * HALF_K) + 2 * k[None, :]
        even = tl.load(pair, mask=row_inside[:, None], other=0.0)
        odd = tl.load(pair + 1, mask=row_inside[:, None], other=0.0)
        total += tl.dot(even, low.to(even.dtype), input_precision="ieee")
        total += tl.dot(odd, high.to(odd.dtype), input_precision="ieee")
    store_tile(total, bias, out, rows, columns, M, N, HAS_BIAS)


@triton.jit
def scaled_linear(
    x,
    codes,
    scales,
    bias,
    out,
    M,
    N,
    K,
    MANTISSA: tl.constexpr,
    BIAS: tl.constexpr,
    SPECIAL: tl.constexpr,
    IN_HARDWARE: tl.constexpr,
    PER_ROW: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Multiplies M rows of x, at most BLOCK_M, by BLOCK_N rows of codes [N, K], as ``decode`` reads
    them.

    Every code is a number that x's dtype can hold; the scale comes last.
    """
    rows = tl.arange(0, BLOCK_M)
    columns = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    places = tl.arange(0, BLOCK_K)
    row_inside, inside = rows < M, columns < N
    weight = codes + columns.to(tl.int64)[None, :] * K
    total = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
    for start in range(0, K, BLOCK_K):
        k = start + places
        along = k < K
        stored = tl.load(weight + k[:, None], mask=along[:, None] & inside[None, :], other=0)
        values = decode(stored, MANTISSA, BIAS, SPECIAL, IN_HARDWARE)
        places_of_x = x + rows[:, None] * K + k[None, :]
        tokens = tl.load(places_of_x, mask=row_inside[:, None] & along[None, :], other=0.0)
        total += tl.dot(tokens, values.to(tokens.dtype), input_precision="ieee")
    if PER_ROW:
        total *= tl.load(scales + columns, mask=inside, other=0.0)[None, :]
    else:
        total *= tl.load(scales)
    store_tile(total, bias, out, rows, columns, M, N, HAS_BIAS)


@triton.jit
def int8_product(
    x,
    codes,
    row_scales,
    column_scales,
    bias,
    out,
    M,
    N,
    K,
    DESCRIBED: tl.constexpr,
    PER_COLUMN: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BAND: tl.constexpr,
):
    """``scale_products`` of x [M, K] by codes [N, K], int8 and contiguous, without storing the
    products.

    DESCRIBED: x and codes are tensor descriptors. Programs go down BAND tiles before they go right,
    so that those at work share what they read.
    """
    program = tl.program_id(0)
    high, in_band = tl.cdiv(M, BLOCK_M), BAND * tl.cdiv(N, BLOCK_N)
    above = program // in_band * BAND
    left = tl.minimum(high - above, BAND)
    m = (above + program % in_band % left) * BLOCK_M
    n = program % in_band // left * BLOCK_N
    rows = m + tl.arange(0, BLOCK_M)
    columns = n + tl.arange(0, BLOCK_N)
    row_inside, inside = rows < M, columns < N
    places = tl.arange(0, BLOCK_K)
    if not DESCRIBED:  # rows beyond the last read others', which are not stored
        x += (rows % M).to(tl.int64)[:, None] * K + places[None, :]
        codes += (columns % N).to(tl.int64)[None, :] * K + places[:, None]
    total = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.int32)
    for k in range(0, K, BLOCK_K):
        if DESCRIBED:
            tokens, weights = x.load([m, k]), codes.load([n, k]).T
        else:
            tokens = tl.load(x + k, mask=(places < K - k)[None, :], other=0)
            weights = tl.load(codes + k, mask=(places < K - k)[:, None], other=0)
        total = tl.dot(tokens, weights, total, out_dtype=tl.int32)
    row_scale = tl.load(row_scales + rows, mask=row_inside, other=0.0)
    values = total.to(tl.float32) * row_scale[:, None]
    if PER_COLUMN:
        values *= tl.load(column_scales + columns, mask=inside, other=0.0)[None, :]
    else:
        values *= tl.load(column_scales)
    store_tile(values, bias, out, rows, columns, M, N, HAS_BIAS)
