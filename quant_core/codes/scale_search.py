"""The best of several ways to scale a block of weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch


def least(candidates: Iterable[tuple[torch.Tensor, ...]]) -> tuple[torch.Tensor, ...]:
    """Picks, place by place, the candidate of least error.

    Each candidate is a tuple (error, values ...) of tensors; the result is the values alone.
    Among equal errors the first wins. A later candidate whose error is NaN is not taken; a first
    one is kept.
    """
    best = None
    for candidate in candidates:
        if best is None:
            best = candidate
            continue
        better = candidate[0] < best[0]
        pairs = zip(candidate, best, strict=True)
        best = tuple(torch.where(better, new, old) for new, old in pairs)
    return best[1:]


def best_scale(
    blocks: torch.Tensor,
    scales: Iterable[torch.Tensor],
    nearest: Callable[[torch.Tensor], torch.Tensor],
    unit: torch.Tensor | float = 1.0,
    weights: torch.Tensor | None = None,
) -> torch.Tensor:
    """The scale of least squared error of each of ``blocks``, float32 [..., size]: float32 [...].

    scales: those to try, float32 [...]. nearest: values in steps to the nearest that have a code.
    unit: the step of a scale of 1. weights: what the error of each value is multiplied by.
    """

    def candidate(scale: torch.Tensor) -> tuple[torch.Tensor, ...]:
        scaled = blocks * reciprocal(scale * unit).unsqueeze(-1)
        error = nearest(scaled).sub_(scaled)
        if weights is not None:
            error.mul_(weights)
        error = torch.linalg.vector_norm(error, dim=-1).mul_(scale.abs())
        # Under a scale of zero the error is zero in steps, but the whole weight is lost.
        return error.masked_fill_(scale == 0, math.nan), scale

    return least(map(candidate, scales))[0]


def reciprocal(step: torch.Tensor) -> torch.Tensor:
    """``1 / step``, finite for a step too small for that, and 0 for 0: its block is all zeros."""
    largest = torch.finfo(step.dtype).max
    return step.reciprocal().clamp_(-largest, largest).masked_fill_(step == 0, 0.0)
