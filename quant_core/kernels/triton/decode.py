"""Stored weights of every format, decoded by one function that constants and a table drive.

FP8 codes are decoded by integer arithmetic where the GPU knows no FP8, as before SM 8.9.

Tested by tests/quant_core/kernels/test_triton.py.
"""

from __future__ import annotations

import triton
import triton.language as tl

# fmt: off
# What is decoded takes twenty arguments: one a line would hide the arithmetic.


@triton.jit
def float8(
    codes,
    MANTISSA: tl.constexpr,
    BIAS: tl.constexpr,
    SPECIAL: tl.constexpr,
    IN_HARDWARE: tl.constexpr,
):
    """FP8 codes, uint8, as float32. SPECIAL: the code of infinity, or of NaN where there is none.
    IN_HARDWARE: the GPU converts FP8 itself."""
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
def _code(
    codes, row, column, inside, K, ROW_BYTES, BITS: tl.constexpr, FLAT: tl.constexpr,
    PACKING: tl.constexpr,
):
    """The codes at [row, column]; PACKING as in ``coding.Coding``. FLAT: rows follow each other
    without gaps."""
    if BITS == 8:
        code = tl.load(codes + row * ROW_BYTES + column, mask=inside, other=0)
    elif PACKING == "planes":
        half = codes + row * ROW_BYTES + column // 2
        low = tl.load(half, mask=inside, other=0).to(tl.int32) >> ((column % 2) * 4)
        high = codes + row * ROW_BYTES + K // 2 + column // 4
        high = tl.load(high, mask=inside, other=0).to(tl.int32) >> ((column % 4) * 2)
        code = (low & 15) | ((high & 3) << 4)
    else:
        if FLAT:
            place = row * K + column
            first = codes
        else:
            place = column
            first = codes + row * ROW_BYTES
        bit = (place % 8) * BITS
        octet = first + (place // 8) * BITS + bit // 8
        shift = (bit % 8).to(tl.int32)
        word = tl.load(octet, mask=inside, other=0).to(tl.int32)
        if PACKING == "high first":
            shift = 4 - shift
        if (8 % BITS) != 0:
            beyond = shift + BITS > 8
            word = word | (tl.load(octet + 1, mask=inside & beyond, other=0).to(tl.int32) << 8)
        code = (word >> shift) & ((1 << BITS) - 1)
    return code


@triton.jit
def _scale_place(
    row, column, K, GROUPS, SCALES: tl.constexpr, GROUP: tl.constexpr, GROUP_ROWS: tl.constexpr,
):
    if SCALES == "group":
        return row * GROUPS + column // GROUP
    if SCALES == "flat":
        return (row * K + column) // GROUP
    if SCALES == "square":
        return (row // GROUP_ROWS) * GROUPS + column // GROUP
    # As the tensor cores read them: tiles of 128 x 4, each of 32 x 4 x 4. GROUPS is padded.
    block = column // GROUP
    tile = (row // 128) * (GROUPS // 4) + block // 4
    return tile * 512 + (row % 32) * 16 + (row % 128) // 32 * 4 + block % 4


@triton.jit
def _scale(
    scales, place, inside, scale_2, zeros, dynamic, SCALE_VALUES: tl.constexpr,
    HAS_SCALE_2: tl.constexpr, IN_HARDWARE: tl.constexpr,
):
    stored = tl.load(scales + place, mask=inside, other=0)
    if SCALE_VALUES == "dynamic":  # codes of scales, in blocks of 256 around a mean
        step = tl.load(scale_2 + place // 256, mask=inside, other=0.0)
        return tl.load(dynamic + stored.to(tl.int32)) * step + tl.load(zeros)
    if SCALE_VALUES == "e4m3":
        scale = float8(stored, 3, 7, 127, IN_HARDWARE)
    elif SCALE_VALUES == "e8m0":
        bits = stored.to(tl.int32) << 23
        scale = tl.where(bits == 0, 1 << 22, bits).to(tl.float32, bitcast=True)
    else:
        scale = stored.to(tl.float32)
    if HAS_SCALE_2:
        scale = scale * tl.load(scale_2)
    return scale


@triton.jit
def decoded(
    codes, table, scales, zeros, scale_2, dynamic, row, column, inside, K, ROW_BYTES, GROUPS,
    BITS: tl.constexpr, VALUES: tl.constexpr, PACKING: tl.constexpr, SCALES: tl.constexpr,
    GROUP: tl.constexpr, GROUP_ROWS: tl.constexpr, SCALE_VALUES: tl.constexpr, ZERO: tl.constexpr,
    HAS_SCALE_2: tl.constexpr, IN_HARDWARE: tl.constexpr,
):
    """The weights at [row, column] in float32, for places that broadcast; see ``coding.Coding``."""
    code = _code(codes, row, column, inside, K, ROW_BYTES, BITS, SCALES == "flat", PACKING)
    if VALUES == "e4m3":
        values = float8(code, 3, 7, 127, IN_HARDWARE)
    elif VALUES == "e5m2":
        values = float8(code, 2, 15, 124, IN_HARDWARE)
    elif VALUES == "table":
        values = tl.load(table + code)
    else:
        values = code.to(tl.float32)
    if SCALES == "tensor":
        scale = tl.load(scales).to(tl.float32)
    elif SCALES == "row":
        scale = tl.load(scales + row + column * 0, mask=inside, other=0.0).to(tl.float32)
    else:
        place = _scale_place(row, column, K, GROUPS, SCALES, GROUP, GROUP_ROWS)
        scale = _scale(
            scales, place, inside, scale_2, zeros, dynamic, SCALE_VALUES, HAS_SCALE_2, IN_HARDWARE
        )
    values = values * scale
    if ZERO == "stored":
        place = _scale_place(row, column, K, GROUPS, SCALES, GROUP, GROUP_ROWS)
        values = values + tl.load(zeros + place, mask=inside, other=0.0).to(tl.float32)
    if ZERO == "middle":
        values = values + scale * -(1 << (BITS - 1))
    return values


@triton.jit
def dequantize(
    codes, table, scales, zeros, scale_2, dynamic, up, down, out, FIRST, N, K, R, ROW_BYTES,
    GROUPS, BITS: tl.constexpr, VALUES: tl.constexpr, PACKING: tl.constexpr,
    SCALES: tl.constexpr, GROUP: tl.constexpr, GROUP_ROWS: tl.constexpr,
    SCALE_VALUES: tl.constexpr, ZERO: tl.constexpr, HAS_SCALE_2: tl.constexpr,
    IN_HARDWARE: tl.constexpr, WHOLE: tl.constexpr, RANK: tl.constexpr, BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """N rows of the weight from row FIRST on, plus up @ down where RANK is not 0: out [N, K] is
    rounded once. up [all rows, R], down [R, K], RANK a power of two from R on. WHOLE: rounded to
    INT8 instead."""
    rows = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    columns = tl.program_id(1) * BLOCK_K + tl.arange(0, BLOCK_K)
    inside = (rows < N)[:, None] & (columns < K)[None, :]
    row = (FIRST + rows).to(tl.int64)[:, None]
    values = decoded(
        codes, table, scales, zeros, scale_2, dynamic, row, columns[None, :], inside, K, ROW_BYTES,
        GROUPS, BITS, VALUES, PACKING, SCALES, GROUP, GROUP_ROWS, SCALE_VALUES, ZERO,
        HAS_SCALE_2, IN_HARDWARE,
    )
    if RANK:
        ranks = tl.arange(0, RANK)
        mask = (rows < N)[:, None] & (ranks < R)[None, :]
        left = tl.load(up + row * R + ranks[None, :], mask=mask, other=0.0)
        mask = (ranks < R)[:, None] & (columns < K)[None, :]
        right = tl.load(down + ranks[:, None] * K + columns[None, :], mask=mask, other=0.0)
        values = tl.dot(left, right, values, input_precision="ieee")
    if WHOLE:
        values = (values + 12582912.0) - 12582912.0  # to nearest, ties to even
        values = tl.minimum(tl.maximum(values, -127.0), 127.0)
    target = out + rows.to(tl.int64)[:, None] * K + columns[None, :]
    tl.store(target, values.to(out.dtype.element_ty), mask=inside)


@triton.jit
def stored_linear(
    x, codes, table, scales, zeros, scale_2, dynamic, bias, out, M, N, K, ROW_BYTES, GROUPS,
    BITS: tl.constexpr, VALUES: tl.constexpr, PACKING: tl.constexpr, SCALES: tl.constexpr,
    GROUP: tl.constexpr, GROUP_ROWS: tl.constexpr, SCALE_VALUES: tl.constexpr, ZERO: tl.constexpr,
    HAS_SCALE_2: tl.constexpr, IN_HARDWARE: tl.constexpr, HAS_BIAS: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):
    """x [M, K] by a weight [N, K] as it is stored; the weight is decoded in the dtype of x."""
    rows = tl.program_id(1) * BLOCK_M + tl.arange(0, BLOCK_M)
    columns = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    places = tl.arange(0, BLOCK_K)
    total = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
    x += rows.to(tl.int64)[:, None] * K
    row = columns.to(tl.int64)[None, :]
    for start in range(0, K, BLOCK_K):
        k = start + places
        inside = (k < K)[:, None] & (columns < N)[None, :]
        weight = decoded(
            codes, table, scales, zeros, scale_2, dynamic, row, k[:, None], inside, K, ROW_BYTES,
            GROUPS, BITS, VALUES, PACKING, SCALES, GROUP, GROUP_ROWS, SCALE_VALUES, ZERO,
            HAS_SCALE_2, IN_HARDWARE,
        )
        mask = (rows < M)[:, None] & (k < K)[None, :]
        tokens = tl.load(x + k[None, :], mask=mask, other=0.0)
        # Beyond the end a zero point would stand: nothing is added there, tokens being zero.
        total = tl.dot(tokens, weight.to(tokens.dtype), total, input_precision="ieee")
    if HAS_BIAS:
        total += tl.load(bias + columns, mask=columns < N, other=0.0).to(tl.float32)[None, :]
    target = out + rows.to(tl.int64)[:, None] * N + columns[None, :]
    mask = (rows < M)[:, None] & (columns < N)[None, :]
    tl.store(target, total.to(out.dtype.element_ty), mask=mask)
