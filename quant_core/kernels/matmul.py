"""Linear layers of 8-bit codes by 8-bit codes, from activations to the scaled result."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from . import plain
from .blocks import is_traced
from .dispatch import (
    has_few_rows,
    quantize_by,
    quantize_rows,
    quantize_rows_low,
    triton_multiplies,
)
from .float8_way import float8_way_of
from .product import (
    adds_low,
    float8_product,
    known_to_multiply_int8,
    multiplies_int8,
    product,
)

INT8_MATMUL_DEVICES = ("cpu", "cuda")  # whose torch._int_mm exists


def eight_bit_linear(
    x: torch.Tensor,
    codes: torch.Tensor,
    scale: torch.Tensor,
    bias: torch.Tensor | None,
    up: torch.Tensor | None = None,
    down: torch.Tensor | None = None,
    first: str = "",
    dtype: torch.dtype | None = None,
) -> torch.Tensor:
    """``first(x) @ (W + up @ down).T + bias`` for x [..., K], with x rounded to the kind of
    ``codes``, a scale a row: INT8 or FP8 E4M3. dtype: of the result, by default x's.

    codes: [N, K]. scale: float32, [N, 1] or []. up [N, R], down [R, K]: a LoRA, which sees x
    itself. first: see ``plain.quantize_rows``; not with a LoRA. ``fits_int8_matmul`` and
    ``fits_float8_matmul`` say where it runs.
    """
    rows = x.reshape(-1, x.shape[-1])
    kind = torch.int8 if codes.dtype == torch.int8 else torch.float8_e4m3fn
    low = None
    if up is None:
        activations, row_scale = quantize_rows(rows, kind, first)
    elif not is_traced(x) and x.is_cuda and triton_multiplies(x.device) and adds_low(up):
        activations, row_scale, low = quantize_rows_low(rows, kind, down)
    else:
        activations, row_scale = quantize_rows(rows, kind)
        low = F.linear(rows, down)
    column_scale = scale.reshape(1, -1)
    if low is not None and dtype not in (None, x.dtype):
        low, up = low.to(dtype), up.to(dtype)
    y = product(activations, codes, row_scale, column_scale, bias, dtype or x.dtype, low, up)
    return y.view(*x.shape[:-1], len(codes))


def fits_int8_matmul(x: torch.Tensor, codes: torch.Tensor) -> bool:
    """CUDA's int8 matmul wants more than 16 rows of x, K and N in eights; a CPU takes any K but 1,
    where torch 2.11 gives wrong numbers."""
    if not x.is_cuda:
        return x.device.type in INT8_MATMUL_DEVICES and codes.dim() == 2 and codes.shape[1] > 1
    eights = codes.dim() == 2 and codes.shape[0] % 8 == 0 and codes.shape[1] % 8 == 0
    if not eights or has_few_rows(x):
        return False
    return (known_to_multiply_int8 if is_traced(x) else multiplies_int8)(x.device)


def fits_float8_matmul(x: torch.Tensor) -> bool:
    """Whether x's GPU multiplies FP8 by FP8, and x has rows enough."""
    return x.is_cuda and not has_few_rows(x) and float8_way_of(x) is not None


def static_float8_linear(
    x: torch.Tensor,
    codes: torch.Tensor,
    scale: torch.Tensor,
    input_scale: torch.Tensor,
    bias: torch.Tensor | None,
) -> torch.Tensor:
    """As ``eight_bit_linear``, with one scale for all of x: what is beyond it saturates.

    scale, input_scale: float32 []. Where no FP8 matmul runs, the same rounding, dequantized.
    """
    rows = quantize_by(x.reshape(-1, x.shape[-1]), input_scale, codes.dtype)
    # A CPU multiplies FP8, slower than anything else.
    if not fits_float8_matmul(x):
        rounded = plain.dequantize_scaled(rows, input_scale, x.dtype).view(x.shape)
        return F.linear(rounded, plain.dequantize_scaled(codes, scale, x.dtype), bias)
    y = float8_product(rows, codes, input_scale, scale, bias, x.dtype)
    return y.view(*x.shape[:-1], len(codes))
