"""Ways to round that no format of ours takes: here to be measured beside those it does."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import product
from typing import TypeVar

import torch

T = TypeVar("T")

SHRINKS = tuple(1 - step / 64 for step in range(17))  # 1.0 down to 0.75


def searched_int8(weight: torch.Tensor) -> torch.Tensor:
    """INT8 per row, the scale of least squared error among SHRINKS of the largest magnitude."""
    largest = weight.abs().amax(1, keepdim=True)

    def rounded(shrink: float) -> torch.Tensor:
        scale = largest * shrink / 127.5
        return (weight / scale).round().clamp(-128, 127) * scale

    return _best(weight, SHRINKS, rounded)


def searched_float8(weight: torch.Tensor) -> torch.Tensor:
    """E4M3 per row; a scale moves the weights against the steps of the mantissa."""
    largest = weight.abs().amax(1, keepdim=True)

    def rounded(factor: float) -> torch.Tensor:
        scale = largest * factor / 448
        return (weight / scale).clamp(-448, 448).to(torch.float8_e4m3fn).float() * scale

    return _best(weight, [2 ** (step / 16) for step in range(-4, 17)], rounded)


def symmetric_int4(weight: torch.Tensor, group: int = 128) -> torch.Tensor:
    """Codes -8 to 7, no zero point, the scale searched: two bytes a group less than affine."""
    groups = weight.view(len(weight), -1, group)
    largest = groups.abs().amax(-1, keepdim=True)

    def rounded(shrink: float) -> torch.Tensor:
        scale = (largest * shrink / 7.5).bfloat16().float()
        return (groups / scale).round().clamp(-8, 7) * scale

    return _best(groups, SHRINKS, rounded).view_as(weight)


def both_ends_int4(weight: torch.Tensor, group: int = 128) -> torch.Tensor:
    """Affine as ours, but each end of the range shrinks by itself: 25 pairs in place of 5."""
    groups = weight.view(len(weight), -1, group)
    low, high = torch.aminmax(groups, dim=-1, keepdim=True)
    middle, half = (low + high) / 2, (high - low) / 2

    def rounded(shrinks: tuple[float, float]) -> torch.Tensor:
        below, above = (half * shrink for shrink in shrinks)
        scale = ((below + above) / 15).clamp_min(1e-12).bfloat16().float()
        zero = (middle - below).bfloat16().float()
        return ((groups - zero) / scale).round().clamp(0, 15) * scale + zero

    return _best(groups, product((1, 0.95, 0.9, 0.85, 0.8), repeat=2), rounded).view_as(weight)


def _best(
    weight: torch.Tensor, choices: Iterable[T], rounded: Callable[[T], torch.Tensor]
) -> torch.Tensor:
    """Row by row (the last dimension) the rounding of least squared error."""
    from graphquant.quant_core.codes.scale_search import least

    def candidate(choice: T) -> tuple[torch.Tensor, ...]:
        found = rounded(choice)
        return (found - weight).square().sum(-1, keepdim=True), found

    return least(map(candidate, choices))[0]
