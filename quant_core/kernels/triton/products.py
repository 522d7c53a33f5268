"""The product of 8-bit codes by 8-bit codes, INT8 or FP8, scaled before it is written.

Tested by tests/quant_core/kernels/test_triton.py.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def product(
    x,
    codes,
    row_scales,
    column_scales,
    bias,
    low,
    up,
    out,
    M,
    N,
    K,
    R,
    DESCRIBED: tl.constexpr,
    FLOATING: tl.constexpr,
    PER_COLUMN: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    RANK: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BAND: tl.constexpr,
):
    """out [M, N] = x [M, K] by codes [N, K], times scales, plus low [M, R] @ up [N, R].T (a LoRA's
    second product; RANK is a power of two from R on, 0 for none), plus bias.

    DESCRIBED: x and codes are tensor descriptors. FLOATING: the codes are FP8. Programs go down
    BAND tiles before they go right, so that those at work share what they read.
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
    SUM: tl.constexpr = tl.float32 if FLOATING else tl.int32
    total = tl.zeros((BLOCK_M, BLOCK_N), dtype=SUM)
    for k in range(0, K, BLOCK_K):
        if DESCRIBED:
            tokens, weights = x.load([m, k]), codes.load([n, k]).T
        else:
            tokens = tl.load(x + k, mask=(places < K - k)[None, :], other=0.0)
            weights = tl.load(codes + k, mask=(places < K - k)[:, None], other=0.0)
        total = tl.dot(tokens, weights, total, out_dtype=SUM)
    row_scale = tl.load(row_scales + rows, mask=row_inside, other=0.0)
    values = total.to(tl.float32) * row_scale[:, None]
    if PER_COLUMN:
        values *= tl.load(column_scales + columns, mask=inside, other=0.0)[None, :]
    else:
        values *= tl.load(column_scales)
    if RANK:
        ranks = tl.arange(0, RANK)
        mask = row_inside[:, None] & (ranks < R)[None, :]
        first = tl.load(low + rows.to(tl.int64)[:, None] * R + ranks[None, :], mask=mask, other=0.0)
        mask = inside[None, :] & (ranks < R)[:, None]
        second = tl.load(up + columns[None, :] * R + ranks[:, None], mask=mask, other=0.0)
        values = tl.dot(first, second, values, input_precision="ieee")
    if HAS_BIAS:
        values += tl.load(bias + columns, mask=inside, other=0.0).to(tl.float32)[None, :]
    target = out + rows.to(tl.int64)[:, None] * N + columns[None, :]
    mask = row_inside[:, None] & inside[None, :]
    tl.store(target, values.to(out.dtype.element_ty), mask=mask)
