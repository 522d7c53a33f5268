"""Starts the kernels of ``decode``, for any format that has a ``Coding``.

Tested by tests/quant_core/kernels/test_triton.py.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch

from ..coding import Coding, Stored
from ..device import reads_float8
from .start import power_of_two, start

# Rows of x that a product takes of a weight as it is stored.
FEW_ROWS = 128
# Of a LoRA that is added to the weight while it is decoded.
MOST_RANKS = 128
_FLOAT8 = (torch.float8_e4m3fn, torch.float8_e5m2)


@lru_cache
def _table(values: tuple[float, ...], device: torch.device) -> torch.Tensor:
    """The table of values, kept on its GPU: sending it there would wait for all work."""
    with torch.inference_mode(False):
        return torch.tensor(values, dtype=torch.float32, device=device)


def _octets(part: torch.Tensor) -> torch.Tensor:
    part = part.contiguous()
    return part.view(torch.uint8) if part.element_size() == 1 and part.dtype in _BYTES else part


_BYTES = (*_FLOAT8, torch.float8_e8m0fnu)


def _tensors(weight: Stored, coding: Coding) -> tuple[torch.Tensor, ...]:
    """codes, table, scales, zeros, scale_2, dynamic; scales stand in for any that is missing."""
    scales, device = _octets(weight.scale), weight.qdata.device
    return (
        _octets(weight.qdata),
        _values(weight, coding, scales),
        scales,
        scales if weight.zero_point is None else weight.zero_point.contiguous(),
        scales if weight.scale_2 is None else weight.scale_2.contiguous(),
        _table(coding.scale_table, device) if coding.scale_table else scales,
    )


def _values(weight: Stored, coding: Coding, scales: torch.Tensor) -> torch.Tensor:
    if weight.codebook is not None:
        return weight.codebook.contiguous()
    return _table(coding.table, scales.device) if coding.table else scales


def _layout(weight: Stored, coding: Coding) -> dict:
    flat = coding.scales == "flat"
    grouped = coding.scales in ("group", "square", "swizzled")
    return {
        "ROW_BYTES": 0 if flat else math.prod(weight.qdata.shape[1:]),
        "GROUPS": weight.scale.shape[-1] if grouped else 1,
        "BITS": coding.bits,
        "VALUES": coding.values,
        "PACKING": coding.packing,
        "SCALES": coding.scales,
        "GROUP": coding.group,
        "GROUP_ROWS": coding.group_rows,
        "SCALE_VALUES": coding.scale_values,
        "ZERO": coding.zero,
        "HAS_SCALE_2": weight.scale_2 is not None and not coding.whole,
        "IN_HARDWARE": reads_float8(weight.qdata.device),
    }


def dequantize(
    weight: Stored,
    coding: Coding,
    dtype: torch.dtype,
    up: torch.Tensor | None = None,
    down: torch.Tensor | None = None,
    rows: slice | None = None,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """The weight as [N, K], or ``rows`` of it into ``out``, which is contiguous. up, down: added to
    it in float32, of at most MOST_RANKS."""
    n, k = weight.shape[0], math.prod(weight.shape[1:])
    rows = rows or slice(0, n)
    count = rows.stop - rows.start
    if out is None:
        out = torch.empty((count, k), dtype=dtype, device=weight.qdata.device)
    rank, high, wide = 0, 4, power_of_two(k, 128, 512)
    if up is not None:
        rank, high, wide = power_of_two(up.shape[1], 16, MOST_RANKS), 32, 128
    start(
        "dequantize",
        (-(-count // high), -(-k // wide)),
        out,
        *_tensors(weight, coding),
        out if up is None else up.contiguous(),
        out if down is None else down.contiguous(),
        out,
        rows.start,
        count,
        k,
        0 if up is None else up.shape[1],
        **_layout(weight, coding),
        WHOLE=coding.whole,
        RANK=rank,
        BLOCK_N=high,
        BLOCK_K=wide,
    )
    return out


def stored_linear(
    x: torch.Tensor, weight: Stored, coding: Coding, bias: torch.Tensor | None
) -> torch.Tensor:
    """``x @ W.T + bias`` in the dtype of x [M, K]: the weight is read as it is stored, once for
    each FEW_ROWS of M."""
    (m, k), n = x.shape, weight.shape[0]
    out = torch.empty((m, n), dtype=x.dtype, device=x.device)
    high, wide, along = few_rows_tile(m, n, x.dtype)
    start(
        "stored_linear",
        (-(-n // wide), -(-m // high)),
        x,
        x.contiguous(),
        *_tensors(weight, coding),
        out if bias is None else bias.contiguous(),
        out,
        m,
        n,
        k,
        **_layout(weight, coding),
        HAS_BIAS=bias is not None,
        BLOCK_M=high,
        BLOCK_N=wide,
        BLOCK_K=along,
        num_stages=2,
    )
    return out


def few_rows_tile(m: int, n: int, dtype: torch.dtype) -> tuple[int, int, int]:
    """Rows, columns, and steps along K of a program: narrow where N is small, so that every
    multiprocessor has work."""
    high = power_of_two(m, 16, FEW_ROWS)
    wide = 16 if high <= 32 and n <= 4096 else 32
    return high, wide, 32 if dtype == torch.float32 else 64
