"""Starts the Triton kernels: the same arguments and results as their twins in ``plain``."""

from __future__ import annotations

from contextlib import nullcontext
from importlib.util import find_spec

import torch

from .plain import SMALLEST_MAXIMUM, largest_code

_HAS_TRITON = find_spec("triton") is not None
# Elements of a row that one program keeps in registers; longer rows are read twice.
_LONGEST_BLOCK = 16384
_BLOCK = 1024
# Bits of the mantissa, bias of the exponent, code of infinity (of NaN where there is none).
_FLOAT8 = {torch.float8_e4m3fn: (3, 7, 127), torch.float8_e5m2: (2, 15, 124)}
# Rows of x that the INT4 kernel takes: one tile of the tensor cores.
SMALL_M = 16


def has_triton() -> bool:
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


def _on(tensor: torch.Tensor):
    """Triton starts kernels on the current GPU, whatever GPU their tensors are on."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else nullcontext()


def quantize_rows(x: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    m, k = x.shape
    x = x if x.stride(1) == 1 else x.contiguous()
    codes = torch.empty((m, k), dtype=dtype, device=x.device)
    scale = torch.empty((m, 1), dtype=torch.float32, device=x.device)
    block = _block(k, _LONGEST_BLOCK)
    warps = max(4, block // 1024)
    options = {"BLOCK": block, "ONE_BLOCK": block >= k, "num_warps": warps}
    with _on(x):
        _kernels().quantize_rows[(m,)](
            x, codes, scale, k, x.stride(0), **_rounding(dtype), **options
        )
    return codes, scale


def quantize_tensor(x: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    x = x.contiguous()
    count = x.numel()
    largest = torch.zeros((), dtype=torch.int32, device=x.device)
    codes = torch.empty(x.shape, dtype=dtype, device=x.device)
    scale = torch.empty((), dtype=torch.float32, device=x.device)
    block = 8 * _BLOCK
    grid = (-(-count // block),)
    with _on(x):
        _kernels().maximum_of_tensor[grid](x, largest, count, BLOCK=block, num_warps=8)
        _kernels().quantize_tensor[grid](
            x, largest, codes, scale, count, **_rounding(dtype), BLOCK=block, num_warps=8
        )
    return codes, scale


def dequantize_scaled(codes: torch.Tensor, scale: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    matrix = codes.contiguous().view(len(codes), -1)
    n, k = matrix.shape
    out = torch.empty(codes.shape, dtype=dtype, device=codes.device)
    mantissa, bias, special = _FLOAT8.get(codes.dtype, (0, 0, 0))
    stored = matrix.view(torch.uint8) if mantissa else matrix
    block = _block(k, 4 * _BLOCK)
    with _on(codes):
        _kernels().dequantize_scaled[(n, -(-k // block))](
            stored,
            scale.contiguous(),
            out,
            k,
            MANTISSA=mantissa,
            BIAS=bias,
            SPECIAL=special,
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
    n, half = codes.shape
    out = torch.empty((n, 2 * half), dtype=dtype, device=codes.device)
    block = _block(half, 2 * _BLOCK)
    with _on(codes):
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
    m, n = products.shape
    out = torch.empty((m, n), dtype=dtype, device=products.device)
    block = _block(n, 4 * _BLOCK)
    with _on(products):
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


def int4_linear(
    x: torch.Tensor,
    codes: torch.Tensor,
    scale: torch.Tensor,
    zero_point: torch.Tensor,
    group_size: int,
    bias: torch.Tensor | None,
) -> torch.Tensor:
    """x: [M, K] with M of at most SMALL_M."""
    m, n = len(x), len(codes)
    out = torch.empty((m, n), dtype=x.dtype, device=x.device)
    columns = 16 if n <= 4096 else 32
    with _on(x):
        _kernels().int4_linear[(-(-n // columns),)](
            x.contiguous(),
            codes.contiguous(),
            scale.contiguous(),
            zero_point.contiguous(),
            out if bias is None else bias.contiguous(),
            out,
            m,
            n,
            codes.shape[1],
            GROUPS=scale.shape[1],
            HALF_GROUP=group_size // 2,
            HAS_BIAS=bias is not None,
            BLOCK_M=SMALL_M,
            BLOCK_N=columns,
        )
    return out
