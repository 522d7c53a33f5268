"""Starts the kernels of ``rows``: the same arguments and results as their twins in ``plain``.

Tested by tests/quant_core/kernels/test_triton.py.
"""

from __future__ import annotations

import torch

from ..plain import SMALLEST_MAXIMUM, largest_code
from .start import power_of_two, start

# Elements of a row that one program keeps in registers; longer rows are read twice.
_LONGEST_BLOCK = 16384
_BLOCK = 1024
# Of a LoRA's first product: more would not stay in registers.
MOST_RANKS = 64
_LOW_ROWS, _LOW_ALONG = 16, 256


def _rounding(dtype: torch.dtype) -> dict:
    return {
        "LIMIT": largest_code(dtype),
        "SMALLEST": SMALLEST_MAXIMUM,
        "INTEGER": dtype == torch.int8,
    }


def _codes_and_scales(m: int, k: int, dtype: torch.dtype, x: torch.Tensor) -> tuple:
    codes = torch.empty((m, k), dtype=dtype, device=x.device)
    return codes, torch.empty((m, 1), dtype=torch.float32, device=x.device)


def quantize_rows(
    x: torch.Tensor, dtype: torch.dtype, first: str = ""
) -> tuple[torch.Tensor, torch.Tensor]:
    """As ``plain.quantize_rows``."""
    m, k = x.shape
    k = k // 2 if first == "swiglu" else k
    x = x if x.stride(1) == 1 else x.contiguous()
    codes, scale = _codes_and_scales(m, k, dtype, x)
    block = power_of_two(k, 128, _LONGEST_BLOCK)
    options = {"FIRST": first, "BLOCK": block, "ONE_BLOCK": block >= k}
    arguments = (x, codes, scale, k, x.stride(0))
    warps = max(4, block // 1024)
    start("quantize_rows", (m,), x, *arguments, **_rounding(dtype), **options, num_warps=warps)
    return codes, scale


def quantize_rows_low(
    x: torch.Tensor, dtype: torch.dtype, down: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """As ``plain.quantize_rows_low``, for at most MOST_RANKS rows of ``down``."""
    (m, k), rank = x.shape, len(down)
    x = x if x.stride(1) == 1 else x.contiguous()
    codes, scale = _codes_and_scales(m, k, dtype, x)
    low = torch.empty((m, rank), dtype=x.dtype, device=x.device)
    start(
        "quantize_rows_low",
        (-(-m // _LOW_ROWS),),
        x,
        *(x, codes, scale, down.contiguous(), low, m, k, rank, x.stride(0)),
        **_rounding(dtype),
        RANK=power_of_two(rank, 16, MOST_RANKS),
        BLOCK_M=_LOW_ROWS,
        BLOCK_K=_LOW_ALONG,
    )
    return codes, scale, low


def quantize_by(x: torch.Tensor, scale: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """As ``plain.quantize_by``."""
    x = x.contiguous()
    codes = torch.empty(x.shape, dtype=dtype, device=x.device)
    block = 4 * _BLOCK
    arguments = (x, codes, scale, x.numel())
    grid = (-(-x.numel() // block),)
    start("quantize_by", grid, x, *arguments, LIMIT=largest_code(dtype), BLOCK=block)
    return codes


def scale_products(
    products: torch.Tensor,
    row_scale: torch.Tensor,
    column_scale: torch.Tensor,
    bias: torch.Tensor | None,
    dtype: torch.dtype,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """As ``plain.scale_products``."""
    m, n = products.shape
    out = torch.empty((m, n), dtype=dtype, device=products.device) if out is None else out
    block = power_of_two(n, 128, 4 * _BLOCK)
    start(
        "scale_products",
        (m, -(-n // block)),
        products,
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
