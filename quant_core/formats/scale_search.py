"""The best of several ways to scale a block of weights."""

from __future__ import annotations

from collections.abc import Iterable

import torch


def least(candidates: Iterable[tuple[torch.Tensor, ...]]) -> tuple[torch.Tensor, ...]:
    """Picks, place by place, the candidate of least error.

    Each candidate is a tuple (error, values ...) of tensors; the result is the values alone. Of
    equal errors the first wins. A later candidate whose error is NaN is not taken; a first one is
    kept.
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
