"""The range of a group of weights that is stored in few bits: its scale and its zero point.

``w = code * scale + zero`` with code 0..levels. Both are float32 values that bfloat16 can hold, and
codes are chosen against them.

The range need not be the extremes: clipping a little makes every step finer. "search" tries several
shrinks of the extremes and keeps the one of least squared error per group. "minmax" takes the
extremes. "hqq" is half-quadratic quantization (Badri and Shaji 2023): it moves the zero point to
lessen the l_0.7 norm of the error.
"""

from __future__ import annotations

import torch

from ..kernels.blocks import row_blocks
from .extremes import require_finite
from .scale_search import least

ALGORITHMS = ("search", "minmax", "hqq")

_FOUR_BITS = 15
_SHRINKS = (1.0, 0.95, 0.9, 0.85, 0.8)
# With fewer bits the best range is far inside the extremes: about a third of them for one bit.
_FEW_BITS_SHRINKS = tuple(percent / 100 for percent in range(100, 20, -5))
_SMALLEST_SCALE = 1e-30
_SMALLEST_ERROR = 1e-12
_HQQ_ITERATIONS, _HQQ_NORM, _HQQ_BETA, _HQQ_GROWTH = 20, 0.7, 10.0, 1.01


def choose_range(
    values: torch.Tensor,
    levels: int,
    algorithm: str,
    symmetric: bool = False,
    importance: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The scale and the zero of each group in ``values`` (float32 [..., group]), both [..., 1].

    levels: the largest code. symmetric: the middle code, (levels + 1) / 2, stands for zero.
    importance: what each value's error is multiplied by in a search; it broadcasts with ``values``.
    NonFiniteWeightError where a value is not finite.
    """
    # torch.aminmax along a dimension takes ten times as long on a CPU.
    low, high = values.amin(-1, keepdim=True), values.amax(-1, keepdim=True)
    largest = torch.maximum(high, -low)
    require_finite(largest)
    if symmetric:
        low, high = -largest, largest
    if algorithm == "search":
        return _search(values, low, high, levels, symmetric, importance)
    step, zero = _range(low, high, levels, 1.0, symmetric)
    return _hqq(values, step, zero, levels) if algorithm == "hqq" else (step, zero)


def group_ranges(
    weight: torch.Tensor,
    group_size: int,
    levels: int,
    algorithm: str,
    symmetric: bool = False,
    importance: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Scale and zero, float32 [N, K / group_size], of ``weight`` [N, K] as ``choose_range`` finds
    them. importance: float32 [K], what the squared error of a column counts."""
    n, k = weight.shape
    weights = None if importance is None else importance.sqrt().view(-1, group_size)
    step = torch.empty(n, k // group_size, device=weight.device)
    zero = torch.empty_like(step)
    for block in row_blocks(weight):
        values = weight[block].float().view(-1, k // group_size, group_size)
        best = choose_range(values, levels, algorithm, symmetric, weights)
        step[block], zero[block] = (each.squeeze(-1) for each in best)
    return step, zero


def codes_of(
    values: torch.Tensor, step: torch.Tensor, zero: torch.Tensor, levels: int
) -> torch.Tensor:
    """The nearest codes of ``values``, as float32."""
    return values.sub(zero).div_(step).round_().clamp_(0, levels)


def _range(
    low: torch.Tensor, high: torch.Tensor, levels: int, shrink: float, symmetric: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    half = (high - low) * (shrink / 2)
    step = (half * (2 / levels)).clamp_(_SMALLEST_SCALE).bfloat16().float()
    if symmetric:
        return step, step * (-(levels + 1) / 2)
    return step, ((low + high) / 2 - half).bfloat16().float()


def _search(
    values: torch.Tensor,
    low: torch.Tensor,
    high: torch.Tensor,
    levels: int,
    symmetric: bool,
    importance: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    exact, error = torch.empty_like(values), torch.empty_like(values)

    def candidate(shrink: float) -> tuple[torch.Tensor, ...]:
        step, zero = _range(low, high, levels, shrink, symmetric)
        torch.sub(values, zero, out=exact).mul_(step.reciprocal())
        torch.round(exact, out=error).clamp_(0, levels).sub_(exact)
        if importance is not None:
            error.mul_(importance)
        return torch.linalg.vector_norm(error, dim=-1, keepdim=True).mul_(step), step, zero

    return least(map(candidate, _SHRINKS if levels >= _FOUR_BITS else _FEW_BITS_SHRINKS))


def _hqq(
    values: torch.Tensor, step: torch.Tensor, zero: torch.Tensor, levels: int
) -> tuple[torch.Tensor, torch.Tensor]:
    beta = _HQQ_BETA
    for _ in range(_HQQ_ITERATIONS):
        rounded = codes_of(values, step, zero, levels) * step
        error = (values - rounded - zero) / step  # in steps, whatever the magnitude
        magnitude = error.abs()
        threshold = magnitude.clamp_min(_SMALLEST_ERROR).pow_(_HQQ_NORM - 1) / beta
        outliers = error.sign() * (magnitude - threshold).clamp_min_(0) * step
        zero = (values - rounded - outliers).mean(-1, keepdim=True)
        beta *= _HQQ_GROWTH
    return step, zero.bfloat16().float()
