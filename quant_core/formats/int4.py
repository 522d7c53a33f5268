"""INT4 weights in groups along K, affine, two codes to a byte.

``w = code * scale + zero_point`` with code 0..15, scale and zero_point bfloat16 per group; the zero
point is the value of code 0, in weight units. Codes are chosen against the *stored* scale and zero
point, so their rounding to bfloat16 costs nothing (relative L2 0.0998 either way at group 128).

The range of a group need not be its extremes: clipping a little makes every step finer. "search"
tries the shrinks below and keeps the one of least squared error per group: 0.0945 where extremes
give 0.0998 (Gaussian, group 128). "minmax" takes the extremes. "hqq" is half-quadratic quantization
(Badri and Shaji 2023): it moves the zero point to lessen the l_0.7 norm of the error.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch

from .base import Format, QuantizedWeight, register_format, require_finite, row_blocks

GROUP_SIZES = (128, 64, 32)
ALGORITHMS = ("search", "minmax", "hqq")

_LEVELS = 15
_SHRINKS = (1.0, 0.95, 0.9, 0.85, 0.8)
_SMALLEST_SCALE = 1e-12
_HQQ_ITERATIONS, _HQQ_NORM, _HQQ_BETA, _HQQ_GROWTH = 20, 0.7, 10.0, 1.01


def group_size_for(in_features: int) -> int | None:
    """The largest group that divides ``in_features``, or None."""
    return next((size for size in GROUP_SIZES if in_features % size == 0), None)


@register_format
@dataclass(frozen=True)
class Int4(Format):
    """group_size: weights along K that share a scale. algorithm: one of ALGORITHMS."""

    kind: ClassVar[str] = "int4"

    group_size: int = 128
    algorithm: str = "search"

    def quantize(self, weight: torch.Tensor) -> QuantizedWeight:
        """weight: [N, K] with K divisible by ``group_size``.

        Stored: qdata uint8 [N, K / 2], low nibble first; scale, zero_point bfloat16 [N, K / group].
        """
        n, k = weight.shape
        groups = k // self.group_size
        qdata = torch.empty(n, k // 2, dtype=torch.uint8, device=weight.device)
        scale = torch.empty(n, groups, dtype=torch.bfloat16, device=weight.device)
        zero_point = torch.empty_like(scale)
        for block in row_blocks(weight):
            values = weight[block].float().view(-1, groups, self.group_size)
            step, zero = self._choose(values)
            codes = _codes(values, step, zero).to(torch.uint8).view(-1, k // 2, 2)
            qdata[block] = codes[..., 0] | (codes[..., 1] << 4)
            scale[block], zero_point[block] = step.squeeze(-1), zero.squeeze(-1)
        return QuantizedWeight(self, qdata, scale, zero_point, (n, k), weight.dtype)

    def _choose(self, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        low, high = torch.aminmax(values, dim=-1, keepdim=True)
        require_finite(torch.maximum(high, -low))
        if self.algorithm == "search":
            return _search(values, low, high)
        step, zero = _range(low, high, 1.0)
        return _hqq(values, step, zero) if self.algorithm == "hqq" else (step, zero)

    def dequantize(self, weight: QuantizedWeight, dtype: torch.dtype) -> torch.Tensor:
        n, k = weight.shape
        out = torch.empty(n, k, dtype=dtype, device=weight.qdata.device)
        for block in row_blocks(out):
            packed = weight.qdata[block]
            codes = torch.stack((packed & 15, packed >> 4), dim=-1)
            codes = codes.view(len(packed), -1, self.group_size).float()
            scale, zero = weight.scale[block, :, None], weight.zero_point[block, :, None]
            out[block] = codes.mul_(scale).add_(zero).view(len(packed), k)
        return out

    def nbytes(self, shape: tuple[int, ...]) -> int:
        weights = math.prod(shape)
        return weights // 2 + 2 * 2 * (weights // self.group_size)

    def __str__(self) -> str:
        return f"int4 groups of {self.group_size}"


def _codes(values: torch.Tensor, step: torch.Tensor, zero: torch.Tensor) -> torch.Tensor:
    return values.sub(zero).div_(step).round_().clamp_(0, _LEVELS)


def _range(
    low: torch.Tensor, high: torch.Tensor, shrink: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Scale and zero point of the shrunk range, as float32 values that bfloat16 can hold."""
    half = (high - low) * (shrink / 2)
    step = (half * (2 / _LEVELS)).clamp_(_SMALLEST_SCALE).bfloat16().float()
    return step, ((low + high) / 2 - half).bfloat16().float()


def _search(
    values: torch.Tensor, low: torch.Tensor, high: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    best = None
    for shrink in _SHRINKS:
        step, zero = _range(low, high, shrink)
        rounded = _codes(values, step, zero).mul_(step).add_(zero)
        error = rounded.sub_(values).square_().sum(-1, keepdim=True)
        if best is None:
            best = (error, step, zero)
            continue
        better = error < best[0]
        pairs = zip((error, step, zero), best, strict=True)
        best = tuple(torch.where(better, new, old) for new, old in pairs)
    return best[1], best[2]


def _hqq(
    values: torch.Tensor, step: torch.Tensor, zero: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    beta = _HQQ_BETA
    for _ in range(_HQQ_ITERATIONS):
        rounded = _codes(values, step, zero) * step
        error = (values - rounded - zero) / step  # in steps: weights of any magnitude fare alike
        magnitude = error.abs()
        threshold = magnitude.clamp_min(_SMALLEST_SCALE).pow_(_HQQ_NORM - 1) / beta
        outliers = error.sign() * (magnitude - threshold).clamp_min_(0) * step
        zero = (values - rounded - outliers).mean(-1, keepdim=True)
        beta *= _HQQ_GROWTH
    return step, zero.bfloat16().float()
