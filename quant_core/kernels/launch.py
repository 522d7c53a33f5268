"""Starts the Triton kernels: the same arguments and results as their twins in ``plain``."""

from __future__ import annotations

from contextlib import nullcontext
from functools import lru_cache
from importlib.util import find_spec

import torch

from .float8_bits import LAYOUTS
from .plain import SMALLEST_MAXIMUM, largest_code

_HAS_TRITON = find_spec("triton") is not None
# Elements of a row that one program keeps in registers; longer rows are read twice.
_LONGEST_BLOCK = 16384
_BLOCK = 1024
_FIRST_FP8 = (8, 9)


def has_triton() -> bool:
    """Whether the package triton is installed."""
    return _HAS_TRITON


def _kernels():
    from . import triton_kernels

    return triton_kernels


def _block(size: int, most: int) -> int:
    """The power of two, from 128 to ``most``, that holds ``size``."""
    return min(most, max(128, 1 << (size - 1).bit_length()))


def _rounding(dtype: torch.dtype) -> dict:
    return {
        "LIMIT": largest_code(dtype),
        "SMALLEST": SMALLEST_MAXIMUM,
        "INTEGER": dtype == torch.int8,
    }


def on_device_of(tensor: torch.Tensor):
    """A context in which kernels start on the GPU of ``tensor``; Triton uses the current GPU,
    whatever its arguments are on."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else nullcontext()


def quantize_rows(x: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """As ``plain.quantize_rows``."""
    m, k = x.shape
    x = x if x.stride(1) == 1 else x.contiguous()
    codes = torch.empty((m, k), dtype=dtype, device=x.device)
    scale = torch.empty((m, 1), dtype=torch.float32, device=x.device)
    block = _block(k, _LONGEST_BLOCK)
    warps = max(4, block // 1024)
    options = {"BLOCK": block, "ONE_BLOCK": block >= k, "num_warps": warps}
    with on_device_of(x):
        _kernels().quantize_rows[(m,)](
            x, codes, scale, k, x.stride(0), **_rounding(dtype), **options
        )
    return codes, scale


def as_stored(codes: torch.Tensor) -> tuple[torch.Tensor, dict]:
    """8-bit ``codes`` in the form that a kernel loads, and the constants with which it decodes
    them."""
    mantissa, bias, special = LAYOUTS.get(codes.dtype, (0, 0, 0))
    layout = {"MANTISSA": mantissa, "BIAS": bias, "SPECIAL": special}
    stored = codes.view(torch.uint8) if mantissa else codes
    return stored, {**layout, "IN_HARDWARE": reads_float8(codes.device)}


@lru_cache
def reads_float8(device: torch.device) -> bool:
    """Whether the GPU converts FP8 in one instruction.

    The dozen integer operations used otherwise take an H100 as long as moving the bytes does.
    """
    known = device.type == "cuda" and not torch.version.hip
    return known and torch.cuda.get_device_capability(device) >= _FIRST_FP8


def dequantize_scaled(codes: torch.Tensor, scale: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """As ``plain.dequantize_scaled``."""
    matrix = codes.contiguous().view(len(codes), -1)
    n, k = matrix.shape
    out = torch.empty(codes.shape, dtype=dtype, device=codes.device)
    stored, layout = as_stored(matrix)
    block = _block(k, 4 * _BLOCK)
    with on_device_of(codes):
        _kernels().dequantize_scaled[(n, -(-k // block))](
            stored,
            scale.contiguous(),
            out,
            k,
            **layout,
            PER_ROW=scale.dim() > 0,
            BLOCK=block,
        )
    return out


def dequantize_int4(
    codes: torch.Tensor,
    scale: torch.Tensor,
    zero_point: torch.Tensor,
    group_size: int,
    dtype: torch.dtype,
) -> torch.Tensor:
    """As ``plain.dequantize_int4``."""
    n, half = codes.shape
    out = torch.empty((n, 2 * half), dtype=dtype, device=codes.device)
    block = _block(half, 2 * _BLOCK)
    with on_device_of(codes):
        _kernels().dequantize_int4[(n, -(-half // block))](
            codes.contiguous(),
            scale.contiguous(),
            zero_point.contiguous(),
            out,
            half,
            scale.shape[1],
            HALF_GROUP=group_size // 2,
            BLOCK=block,
        )
    return out


def scale_products(
    products: torch.Tensor,
    row_scale: torch.Tensor,
    column_scale: torch.Tensor,
    bias: torch.Tensor | None,
    dtype: torch.dtype,
) -> torch.Tensor:
    """As ``plain.scale_products``."""
    m, n = products.shape
    out = torch.empty((m, n), dtype=dtype, device=products.device)
    block = _block(n, 4 * _BLOCK)
    with on_device_of(products):
        _kernels().scale_products[(m, -(-n // block))](
            products.contiguous(),
            row_scale.contiguous(),
            column_scale.contiguous(),
            out if bias is None else bias.contiguous(),
            out,
            n,
            PER_COLUMN=column_scale.numel() > 1,
            HAS_BIAS=bias is not None,
            BLOCK=block,
        )
    return out
