"""How PyTorch multiplies FP8 by FP8 on a device: tried once, on a small matmul.

Tested by tests/quant_core/kernels/test_matmul.py.
"""

from __future__ import annotations

import torch

from .blocks import is_traced
from .device import found

# Rows and columns that are tried: a library may have no kernel for less than a tile.
_TRIED = 128
# What was found, by device.
WAYS: dict[torch.device, str | None] = {}
FLOAT16_RESULTS: dict[torch.device, bool] = {}


def float8_way(device: torch.device) -> str | None:
    """How FP8 is multiplied on ``device``.

    "row-wise": torch._scaled_mm takes a scale a row. "tensor-wise": it takes one scale alone, as on
    Windows, and rows and columns are scaled afterwards. None: it does not run, or gives wrong
    numbers.
    """
    return found(WAYS, device, _try_ways)


def float8_way_of(x: torch.Tensor) -> str | None:
    """``float8_way`` of x's device; under torch.compile, where nothing can be tried, what was found
    before."""
    return WAYS.get(x.device) if is_traced(x) else float8_way(x.device)


def writes_directly(device: torch.device, dtype: torch.dtype, traced: bool) -> bool:
    """Whether the product comes out in ``dtype``: always in bfloat16, and in float16 row-wise from
    PyTorch 2.11 on, which is tried, unless something is ``traced``."""
    if dtype != torch.float16:
        return dtype == torch.bfloat16
    known = FLOAT16_RESULTS
    return bool(known.get(device) if traced else found(known, device, _try_float16))


def float8_problem(device: torch.device) -> RuntimeError | None:
    """Why neither way runs; None where one does."""
    try:
        return None if float8_way(device) else _problem("tensor-wise", device)
    except torch.OutOfMemoryError as full:
        return full


def scaled_mm(
    x: torch.Tensor,
    codes: torch.Tensor,
    scale_x: torch.Tensor,
    scale: torch.Tensor,
    bias: torch.Tensor | None,
    dtype: torch.dtype,
) -> torch.Tensor:
    """``torch._scaled_mm`` of FP8 x [M, K] by codes [N, K]."""
    return torch._scaled_mm(
        x,
        codes.t(),
        scale_a=scale_x,
        scale_b=scale,
        bias=bias,
        out_dtype=dtype,
        use_fast_accum=True,
    )


def _try_ways(device: torch.device) -> str | None:
    ways = ("row-wise", "tensor-wise")
    # A CPU takes a scale a row since torch 2.14, and rounds the sums to bfloat16 then.
    ordered = reversed(ways) if device.type == "cpu" else ways
    works = (way for way in ordered if _problem(way, device) is None)
    return next(works, None)


def _try_float16(device: torch.device) -> bool:
    return _problem("row-wise", device, torch.float16) is None


def _problem(
    way: str, device: torch.device, dtype: torch.dtype = torch.bfloat16
) -> RuntimeError | None:
    """dtype: of the row-wise product."""
    try:
        ones = torch.ones(_TRIED, _TRIED, device=device).to(torch.float8_e4m3fn)
        if way == "row-wise":
            scale = torch.full((_TRIED, 1), 0.5, device=device)
            bias = ones[0].to(dtype)
            product = scaled_mm(ones, ones, scale, scale.t(), bias, dtype) - bias
        else:
            scale = torch.full((), 0.5, device=device)
            product = scaled_mm(ones, ones, scale, scale, None, torch.float32)
        right = bool((product == _TRIED / 4).all())
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:  # how PyTorch says that device or library has no such kernel
        return error
    return None if right else RuntimeError("Its FP8 matmul gives wrong numbers.")
