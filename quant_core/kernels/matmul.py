"""Matmuls of 8-bit codes by 8-bit codes, from activations to the scaled result."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from .blocks import is_traced
from .dispatch import dequantize_scaled, has_few_rows, quantize_rows, scale_products, with_index
from .int8_product import int8_product

INT8_MATMUL_DEVICES = ("cpu", "cuda")  # whose torch._int_mm exists
# Rows and columns that FP8 is tried on: a library may have no kernel for less than a tile.
_TRIED = 128
# Which way FP8 runs, by device: found once.
_float8_ways: dict[torch.device, str | None] = {}


def int8_linear(
    x: torch.Tensor, codes: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor | None
) -> torch.Tensor:
    """``x @ W.T + bias`` in the dtype of x [..., K], with x in INT8, a scale a row.

    codes: int8 [N, K]. scale: float32, [N, 1] or []. ``fits_int8_matmul`` says where it runs.
    """
    rows = x.reshape(-1, x.shape[-1])
    activations, row_scale = quantize_rows(rows, torch.int8)
    y = int8_product(activations, codes, row_scale, scale.reshape(1, -1), bias, x.dtype)
    return y.view(*x.shape[:-1], len(codes))


def fits_int8_matmul(x: torch.Tensor, codes: torch.Tensor) -> bool:
    """Whether INT8 codes [N, K] can be multiplied by INT8 activations of the shape of x on its
    device.

    CUDA needs more than 16 rows of x, and K and N in eights. A CPU takes any K but 1, where torch
    2.11 gives wrong numbers.
    """
    if not x.is_cuda:
        return x.device.type in INT8_MATMUL_DEVICES and codes.dim() == 2 and codes.shape[1] > 1
    eights = codes.dim() == 2 and codes.shape[0] % 8 == 0 and codes.shape[1] % 8 == 0
    return eights and not has_few_rows(x)


def float8_linear(
    x: torch.Tensor, codes: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor | None
) -> torch.Tensor:
    """``x @ W.T + bias`` in the dtype of x [..., K], with x in FP8 E4M3, a scale a row.

    codes: FP8 [N, K], both in sixteens. scale: float32, [N, 1] or []. RuntimeError where
    ``float8_way`` is None.
    """
    rows = x.reshape(-1, x.shape[-1])
    activations, row_scale = quantize_rows(rows, torch.float8_e4m3fn)
    column_scale = scale.reshape(1, -1)
    if _way(x) == "tensor-wise":
        one = scale.new_ones(())
        products = _scaled_mm(activations, codes, one, one, None, torch.float32)
        y = scale_products(products, row_scale, column_scale, bias, x.dtype)
        return y.view(*x.shape[:-1], len(codes))
    column_scale = column_scale.expand(1, len(codes)).contiguous()
    # With a scale a row the library gives bfloat16 alone, and adds a bias of that dtype.
    inside = bias.bfloat16() if bias is not None and x.dtype == torch.bfloat16 else None
    y = _scaled_mm(activations, codes, row_scale, column_scale, inside, torch.bfloat16)
    y = y.to(x.dtype)
    if inside is None and bias is not None:
        y += bias
    return y.view(*x.shape[:-1], len(codes))


def static_float8_linear(
    x: torch.Tensor,
    codes: torch.Tensor,
    scale: torch.Tensor,
    input_scale: torch.Tensor,
    bias: torch.Tensor | None,
) -> torch.Tensor:
    """As ``float8_linear``, with one scale for all of x; larger values saturate.

    scale, input_scale: float32 []. Where no FP8 matmul runs, x is rounded in the same way and the
    product is made of dequantized operands.
    """
    limit = torch.finfo(codes.dtype).max
    activations = (x.float() / input_scale).clamp_(-limit, limit).to(codes.dtype)
    # A CPU multiplies FP8, slower than anything else.
    if not x.is_cuda or has_few_rows(x) or _way(x) is None:
        rounded = activations.to(x.dtype).mul_(input_scale)
        return F.linear(rounded, dequantize_scaled(codes, scale, x.dtype), bias)
    inside = bias.bfloat16() if bias is not None and x.dtype == torch.bfloat16 else None
    rows = activations.reshape(-1, x.shape[-1])
    y = _scaled_mm(rows, codes, input_scale, scale, inside, torch.bfloat16).to(x.dtype)
    if inside is None and bias is not None:
        y += bias
    return y.view(*x.shape[:-1], len(codes))


def _way(x: torch.Tensor) -> str | None:
    # Under torch.compile nothing can be tried.
    return _float8_ways.get(x.device) if is_traced(x) else float8_way(x.device)


def _scaled_mm(activations, codes, scale_a, scale_b, bias, dtype) -> torch.Tensor:
    return torch._scaled_mm(
        activations,
        codes.t(),
        scale_a=scale_a,
        scale_b=scale_b,
        bias=bias,
        out_dtype=dtype,
        use_fast_accum=True,
    )


def float8_way(device: torch.device) -> str | None:
    """How FP8 is multiplied on ``device``, tried on a small matmul, once a device.

    "row-wise": torch._scaled_mm takes a scale a row. "tensor-wise": it takes one scale alone, and
    rows and columns are scaled afterwards. None: it does not run, or gives wrong numbers.
    """
    device = with_index(device)
    if device not in _float8_ways:
        works = (way for way in ("row-wise", "tensor-wise") if _problem(way, device) is None)
        _float8_ways[device] = next(works, None)
    return _float8_ways[device]


def float8_problem(device: torch.device) -> RuntimeError | None:
    """Why FP8 cannot be multiplied on ``device`` in either way; None where it can."""
    return None if float8_way(device) else _problem("tensor-wise", device)


def _problem(way: str, device: torch.device) -> RuntimeError | None:
    try:
        ones = torch.ones(_TRIED, _TRIED, device=device).to(torch.float8_e4m3fn)
        if way == "row-wise":
            scale = torch.full((_TRIED, 1), 0.5, device=device)
            bias = ones[0].bfloat16()
            product = _scaled_mm(ones, ones, scale, scale.t(), bias, torch.bfloat16) - bias
        else:
            scale = torch.full((), 0.5, device=device)
            product = _scaled_mm(ones, ones, scale, scale, None, torch.float32)
        right = bool((product == _TRIED / 4).all())
    except RuntimeError as error:  # how PyTorch says that device or library has no such kernel
        return error
    return None if right else RuntimeError("Its FP8 matmul gives wrong numbers.")
