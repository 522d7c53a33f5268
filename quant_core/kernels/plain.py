"""The kernels in plain PyTorch: what every other way of computing them must equal.

Each works in blocks that fit the cache, of a CPU or a GPU. On a CPU their operands have one dtype:
PyTorch's own mixing of dtypes takes ten times as long there. Numbers that are not finite stay so,
in the whole row, and rows of zeros stay zeros.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F

from .blocks import GPU_BLOCK, in_one_block, is_traced, row_blocks
from .float8_bits import decode_float8, has_bits

# Under the largest magnitude of a row: its scale stays above zero, its reciprocal finite.
SMALLEST_MAXIMUM = 1e-30
# Stored bytes of a weight.
_SMALL = 4096
# Of an INT8 matmul's result that waits to be scaled on a GPU.
_FEWEST_ROWS = 32
# As tensors: a Python number costs each operation two microseconds more.
_FOUR, _NIBBLES = torch.tensor(4, dtype=torch.int16), torch.tensor(0x0F0F, dtype=torch.int16)


def largest_code(dtype: torch.dtype) -> float:
    """127 or FP8's largest finite number."""
    return 127.0 if dtype == torch.int8 else torch.finfo(dtype).max


def quantize_rows(
    x: torch.Tensor, dtype: torch.dtype, first: str = ""
) -> tuple[torch.Tensor, torch.Tensor]:
    """x [M, K], float, as codes [M, K] in int8 or FP8 and scales [M, 1] in float32: the largest
    magnitude of a row becomes the largest code, the others the nearest, ties to even.

    first: what x goes through before, in float32: "gelu" in its tanh form, or "swiglu", of
    [M, 2 K], silu(x[:, :K]) * x[:, K:].
    """
    if first:
        x = _FIRST[first](x.float())
    if x.device.type != "cpu" and not is_traced(x):
        return _quantize_on_gpu(x, dtype)
    if in_one_block(x):
        return _quantize_block(x, dtype)
    codes = torch.empty(x.shape, dtype=dtype)
    scale = torch.empty(len(x), 1)
    for block in row_blocks(x):
        codes[block], scale[block] = _quantize_block(x[block], dtype)
    return codes, scale


_FIRST = {
    "gelu": lambda x: F.gelu(x, approximate="tanh"),
    "swiglu": lambda x: F.silu(x[:, : x.shape[1] // 2]) * x[:, x.shape[1] // 2 :],
}


def quantize_rows_low(
    x: torch.Tensor, dtype: torch.dtype, down: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """``quantize_rows`` of x [M, K], and ``x @ down.T`` [M, R] in the dtype of x."""
    return *quantize_rows(x, dtype), F.linear(x, down)


def _quantize_on_gpu(x: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Two passes over x: the extremes of all rows, which makes nothing large, then the codes."""
    low, high = torch.aminmax(x, dim=1, keepdim=True)
    largest = torch.maximum(high, -low).float()
    scale = largest.clamp_(SMALLEST_MAXIMUM).div_(largest_code(dtype))
    inverse = scale.reciprocal()
    codes = torch.empty(x.shape, dtype=dtype, device=x.device)
    for block in row_blocks(x):
        codes[block] = _round(torch.mul(x[block], inverse[block]), dtype)
    return codes, scale


def quantize_by(x: torch.Tensor, scale: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """x [M, K] in FP8 codes of a given scale, float32 []; what is beyond the largest saturates."""
    limit = torch.finfo(dtype).max
    if is_traced(x):
        return (x.float() / scale).clamp(-limit, limit).to(dtype)
    codes = torch.empty(x.shape, dtype=dtype, device=x.device)
    for block in row_blocks(x):
        codes[block] = (x[block].float() / scale).clamp_(-limit, limit)
    return codes


def _quantize_block(x: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    values = x.float()
    scale = values.abs().amax(1, keepdim=True).clamp_(SMALLEST_MAXIMUM).div_(largest_code(dtype))
    return _round(values * scale.reciprocal(), dtype), scale


def _round(values: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    if dtype == torch.int8:
        return values.round_().char()  # .to(dtype) takes a microsecond more
    limit = torch.finfo(dtype).max
    return values.clamp_(-limit, limit).to(dtype)  # a cast to FP8 does not saturate


def dequantize_scaled(codes: torch.Tensor, scale: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """``codes * scale`` of int8 or FP8 codes [N, ...], formed in float32, rounded once to
    ``dtype``. scale: float32, [N, 1, ...] or []."""
    # PyTorch rounds a scale of no dimensions to the dtype of the other factor before it multiplies:
    # 0.39 % off in bfloat16.
    scale = scale if scale.dim() else scale.view((1,) * codes.dim())
    small = codes.numel() <= _SMALL  # where the number of passes is what costs
    if small or is_traced(codes):
        return _dequantize_mixed(codes, scale, torch.empty_like(codes, dtype=dtype))
    matrix = codes.reshape(len(codes), -1)
    steps = scale.view(-1, 1)
    out = torch.empty(matrix.shape, dtype=dtype, device=codes.device)
    for block in row_blocks(matrix):
        step = steps[block] if len(steps) > 1 else steps
        if codes.device.type == "cpu":
            out[block] = _decode(matrix[block]).mul_(step)
        else:
            _dequantize_mixed(matrix[block], step, out[block])
    return out.view(codes.shape)


def _dequantize_mixed(codes: torch.Tensor, scale: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
    """One kernel of int8; two of FP8, whose codes every float dtype holds exactly."""
    if codes.dtype == torch.int8:
        return torch.mul(codes, scale, out=out)
    return torch.mul(out.copy_(codes), scale, out=out)


def _decode(codes: torch.Tensor) -> torch.Tensor:
    return decode_float8(codes) if has_bits(codes.dtype) else codes.float()


def dequantize_int4(
    codes: torch.Tensor,
    scale: torch.Tensor,
    zero_point: torch.Tensor,
    group_size: int,
    dtype: torch.dtype,
) -> torch.Tensor:
    """``code * scale + zero_point`` [N, K], formed in float32, rounded once to ``dtype``.

    codes: uint8 [N, K / 2], the low nibble first. scale, zero_point: [N, K / group_size].
    """
    if in_one_block(codes):
        return _dequantize_groups(codes, scale, zero_point, group_size).to(dtype)
    out = torch.empty(codes.shape[0], 2 * codes.shape[1], dtype=dtype, device=codes.device)
    for block in row_blocks(out):
        parts = (codes[block], scale[block], zero_point[block])
        out[block] = _dequantize_groups(*parts, group_size)
    return out


def _dequantize_groups(
    codes: torch.Tensor, scale: torch.Tensor, zero_point: torch.Tensor, group_size: int
) -> torch.Tensor:
    values = unpack_nibbles(codes).float().view(len(codes), -1, group_size)
    if codes.numel() <= _SMALL:
        return torch.addcmul(zero_point.unsqueeze(-1), values, scale.unsqueeze(-1)).flatten(1)
    values = values.mul_(scale.float().unsqueeze(-1)).add_(zero_point.float().unsqueeze(-1))
    return values.flatten(1)


def pack_nibbles(codes: torch.Tensor) -> torch.Tensor:
    """uint8 [N, 2 B] of values below 16 as uint8 [N, B], the low nibble first."""
    if is_traced(codes) or codes.device.type != "cpu":
        return codes[:, ::2] | (codes[:, 1::2] << 4)
    pairs = codes.contiguous().view(torch.int16)  # a transposed weight has transposed codes
    return (pairs | (pairs >> 4)).to(torch.uint8)


def unpack_nibbles(packed: torch.Tensor) -> torch.Tensor:
    """uint8 [N, B] as uint8 [N, 2 B], the low nibble first."""
    if is_traced(packed) or packed.device.type != "cpu":
        return torch.stack((packed & 15, packed >> 4), dim=-1).flatten(-2)
    # Both nibbles into the two bytes of one number, the lower into the first.
    pairs = packed.to(torch.int16)
    pairs |= torch.bitwise_left_shift(pairs, _FOUR)
    return pairs.bitwise_and_(_NIBBLES).view(torch.uint8)


def scale_products(
    products: torch.Tensor,
    row_scale: torch.Tensor,
    column_scale: torch.Tensor,
    bias: torch.Tensor | None,
    dtype: torch.dtype,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """``products * row_scale * column_scale + bias`` in float32, rounded once to ``dtype``.

    products: int32 or float [M, N]. row_scale: [M, 1]. column_scale: [1, N] or [1, 1]. bias: [N].
    out: where to write; it may be ``products``.
    """
    bias = None if bias is None else bias.float()
    if out is None and in_one_block(products):
        values = _scale_block(products, row_scale, column_scale, bias)
        return values if dtype == torch.float32 else values.to(dtype)
    if out is None:
        out = torch.empty(products.shape, dtype=dtype, device=products.device)
    for block in row_blocks(products):
        out[block] = _scale_block(products[block], row_scale[block], column_scale, bias)
    return out


def _scale_block(products, row_scale, column_scale, bias):
    if products.device.type != "cpu":  # fewer kernels, whatever their dtypes
        values = torch.mul(products, row_scale.float())
        if bias is None:
            return values.mul_(column_scale)
        return torch.addcmul(bias, values, column_scale)
    values = (
        products.float().mul_(row_scale)
        if products.dtype != torch.float32
        else (products * row_scale)
    )
    values = values.mul_(column_scale)
    return values if bias is None else values.add_(bias)


def product(
    x: torch.Tensor,
    codes: torch.Tensor,
    row_scale: torch.Tensor,
    column_scale: torch.Tensor,
    bias: torch.Tensor | None,
    dtype: torch.dtype,
    scale: Callable = scale_products,
) -> torch.Tensor:
    """``scale_products`` of ``x @ codes.T``, int8 [M, K] and [N, K].

    On a GPU some rows at a time: products have four bytes, which would make the largest tensor of
    all. scale: what scales them, as ``scale_products`` does.
    """
    step = max(GPU_BLOCK // len(codes), _FEWEST_ROWS)
    if x.device.type == "cpu" or is_traced(x) or len(x) <= step:
        products = torch._int_mm(x, codes.t())
        return scale(products, row_scale, column_scale, bias, dtype)
    out = torch.empty(len(x), len(codes), dtype=dtype, device=x.device)
    # The last block is no smaller than the library takes.
    starts = range(0, max(1, len(x) - _FEWEST_ROWS), step)
    for start, stop in zip(starts, (*starts[1:], len(x)), strict=True):
        rows = slice(start, stop)
        products = torch._int_mm(x[rows], codes.t())
        scale(products, row_scale[rows], column_scale, bias, dtype, out=out[rows])
    return out
