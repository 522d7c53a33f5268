"""The kernels in plain PyTorch: what every other way of computing them must equal.

On a CPU each works in blocks that fit the cache, on operands of one dtype: PyTorch's own mixing of
dtypes takes ten times as long there. Numbers that are not finite stay so, in the whole row (of a
tensor with one scale: everywhere), and rows of zeros stay zeros.
"""

from __future__ import annotations

import torch

from .blocks import in_one_block, is_traced, row_blocks
from .float8_bits import decode_float8, has_bits

# Under the largest magnitude of a row: its scale stays above zero, its reciprocal finite.
SMALLEST_MAXIMUM = 1e-30
# Stored bytes of a weight.
_SMALL = 4096
# As tensors: a Python number costs each operation two microseconds more.
_FOUR, _NIBBLES = torch.tensor(4, dtype=torch.int16), torch.tensor(0x0F0F, dtype=torch.int16)


def largest_code(dtype: torch.dtype) -> float:
    """The largest code of a dtype: 127 for int8, else FP8's largest finite number."""
    return 127.0 if dtype == torch.int8 else torch.finfo(dtype).max


def quantize_rows(x: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Rounds x [M, K], float, to codes [M, K] in int8 or FP8 with scales [M, 1] in float32.

    The largest magnitude of a row becomes the largest code; ties go to even.
    """
    if in_one_block(x):
        return _quantize_block(x, dtype)
    codes = torch.empty(x.shape, dtype=dtype)
    scale = torch.empty(len(x), 1)
    for block in row_blocks(x):
        codes[block], scale[block] = _quantize_block(x[block], dtype)
    return codes, scale


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
    """``codes * scale`` in float32, rounded once to ``dtype``.

    codes: int8 or FP8 [N, ...]. scale: float32, [N, 1, ...] or [].
    """
    small = codes.numel() <= _SMALL  # where the number of passes is what costs
    if small or codes.device.type != "cpu" or is_traced(codes):
        # One kernel of int8; two of FP8, whose codes every float dtype holds exactly.
        if codes.dtype == torch.int8:
            return torch.mul(codes, scale, out=torch.empty_like(codes, dtype=dtype))
        values = codes.to(dtype)
        return torch.mul(values, scale, out=values)
    matrix = codes.reshape(len(codes), -1)
    steps = scale.view(-1, 1)
    out = torch.empty(matrix.shape, dtype=dtype)
    for block in row_blocks(matrix):
        out[block] = _decode(matrix[block]).mul_(steps[block] if scale.dim() else steps)
    return out.view(codes.shape)


def _decode(codes: torch.Tensor) -> torch.Tensor:
    return decode_float8(codes) if has_bits(codes.dtype) else codes.float()


def dequantize_int4(
    codes: torch.Tensor,
    scale: torch.Tensor,
    zero_point: torch.Tensor,
    group_size: int,
    dtype: torch.dtype,
) -> torch.Tensor:
    """``code * scale + zero_point`` [N, K] in float32, rounded once to ``dtype``.

    codes: uint8 [N, K / 2], the low nibble first. scale, zero_point: [N, K / group_size].
    """
    if in_one_block(codes):
        return _dequantize_groups(codes, scale, zero_point, group_size).to(dtype)
    out = torch.empty(codes.shape[0], 2 * codes.shape[1], dtype=dtype)
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
    """Packs uint8 [N, 2 B] of values below 16 into uint8 [N, B], the low nibble first."""
    if is_traced(codes) or codes.device.type != "cpu":
        return codes[:, ::2] | (codes[:, 1::2] << 4)
    pairs = codes.contiguous().view(torch.int16)  # a transposed weight has transposed codes
    return (pairs | (pairs >> 4)).to(torch.uint8)


def unpack_nibbles(packed: torch.Tensor) -> torch.Tensor:
    """The inverse of ``pack_nibbles``: uint8 [N, B] to uint8 [N, 2 B]."""
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
) -> torch.Tensor:
    """``products * row_scale * column_scale + bias`` in float32, rounded once to ``dtype``.

    products: int32 or float32 [M, N]. row_scale: [M, 1]. column_scale: [1, N] or [1, 1]. bias: [N].
    """
    bias = None if bias is None else bias.float()
    if in_one_block(products):
        values = _scale_block(products, row_scale, column_scale, bias)
        return values if dtype == torch.float32 else values.to(dtype)
    out = torch.empty(products.shape, dtype=dtype)
    for block in row_blocks(products):
        out[block] = _scale_block(products[block], row_scale[block], column_scale, bias)
    return out


def _scale_block(products, row_scale, column_scale, bias):
    values = (
        products.float().mul_(row_scale)
        if products.dtype != torch.float32
        else (products * row_scale)
    )
    values = values.mul_(column_scale)
    return values if bias is None else values.add_(bias)


def int8_product(
    x: torch.Tensor,
    codes: torch.Tensor,
    row_scale: torch.Tensor,
    column_scale: torch.Tensor,
    bias: torch.Tensor | None,
    dtype: torch.dtype,
) -> torch.Tensor:
    """``scale_products`` of the integer product ``x @ codes.T``; x: int8 [M, K], codes: int8 [N,
    K]."""
    return scale_products(torch._int_mm(x, codes.t()), row_scale, column_scale, bias, dtype)


def int4_linear(
    x: torch.Tensor,
    codes: torch.Tensor,
    scale: torch.Tensor,
    zero_point: torch.Tensor,
    group_size: int,
    bias: torch.Tensor | None,
) -> torch.Tensor:
    """``x @ W.T + bias`` in the dtype of x [..., K], W as ``dequantize_int4`` gives it."""
    dtype = _product_dtype(x, codes)
    weight = dequantize_int4(codes, scale, zero_point, group_size, dtype)
    return _linear(x, weight, bias)


def scaled_linear(
    x: torch.Tensor, codes: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor | None
) -> torch.Tensor:
    """``x @ W.T + bias`` in the dtype of x [..., K], W as ``dequantize_scaled`` gives it."""
    return _linear(x, dequantize_scaled(codes, scale, _product_dtype(x, codes)), bias)


def _product_dtype(x: torch.Tensor, codes: torch.Tensor) -> torch.dtype:
    """That of x. A CPU takes 20 microseconds for the least product of bfloat16, 5 for one of
    float32."""
    small = codes.numel() <= _SMALL and codes.device.type == "cpu" and not is_traced(x)
    return torch.float32 if small else x.dtype


def _linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    if x.dtype == weight.dtype:
        return torch.nn.functional.linear(x, weight, bias)
    bias = None if bias is None else bias.to(weight.dtype)
    return torch.nn.functional.linear(x.to(weight.dtype), weight, bias).to(x.dtype)
