"""Round a weight's columns one after another, each compensating the errors of those before it.

With H = X^T X of a layer's inputs, an error E of its weight makes a squared error tr(E H E^T) of
its output. Let H = L D L^T, L unit lower triangular. That is the sum of D[k] times the squares of
column k of E L: what column k loses itself, and what later columns lose times L[later, k]. So
columns are rounded from the last to the first, each after adding to it what those already rounded
have lost, times L (Frantar et al. 2022, arXiv 2210.17323; in this form Chee et al. 2023, arXiv
2307.13304). One Cholesky factor does; nothing is inverted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from ..formats.base.grid import Grid

# Columns whose feedback is one product; within them, those whose feedback is a smaller one.
_BLOCK, _RUN = 128, 16
# Rows of the weight at a time: what one run of columns touches fits a CPU's cache.
_ROWS = 4096


@dataclass(frozen=True)
class Feedback:
    """What a rounded column passes on. order: columns, the first rounded first. weights: [K, K]
    float32, in that order reversed: of column r, what lies below the diagonal is the share of each
    already rounded column's error that r is given."""

    order: torch.Tensor
    weights: torch.Tensor


def feedback_of(hessian: torch.Tensor) -> Feedback | None:
    """The feedback for ``hessian`` [K, K], float32, symmetric; None where it is not positive.

    Columns of large diagonal are rounded first: the many of small diagonal then compensate them.
    """
    order = torch.argsort(hessian.diagonal(), descending=True)
    places = order.flip(0)
    factor, info = torch.linalg.cholesky_ex(hessian[places[:, None], places])
    if info.item() or not torch.isfinite(factor.diagonal()).all():
        return None
    return Feedback(order, factor.div_(factor.diagonal().clone()))


def compensated(
    weight: torch.Tensor,
    grid: Grid,
    feedback: Feedback,
    on_columns: Callable[[int], None] | None = None,
) -> torch.Tensor:
    """``weight`` (float32 [N, K]) on the values of ``grid``, float32 [N, K].

    on_columns(done) is called after every block of columns, with the number of weights done; it may
    raise, to cancel.
    """
    n, k = weight.shape
    width = k // grid.step.shape[1]
    groups = (feedback.order // width).tolist()
    places = feedback.order.flip(0)
    out = torch.empty_like(weight)
    for start in range(0, n, _ROWS):
        rows = slice(start, min(start + _ROWS, n))
        values = weight[rows][:, places].t().contiguous()
        lost = _round_columns(values, grid, rows, feedback.weights, groups[::-1], on_columns)
        out[rows, places] = values.sub_(lost).t()
    return out


def _round_columns(
    values: torch.Tensor,
    grid: Grid,
    rows: slice,
    weights: torch.Tensor,
    groups: list[int],
    on_columns: Callable[[int], None] | None,
) -> torch.Tensor:
    """What each of the columns ``values`` [K, n] loses, from the last to the first."""
    k, n = values.shape
    lost = torch.empty_like(values)
    for end in range(k, 0, -_BLOCK):
        start = max(0, end - _BLOCK)
        given = weights[end:, start:end].t() @ lost[end:]
        for stop in range(end, start, -_RUN):
            first = max(start, stop - _RUN)
            run = slice(first - start, stop - start)
            given[run].addmm_(weights[stop:end, first:stop].t(), lost[stop:end])
            for column in range(stop - 1, first - 1, -1):
                value = values[column] + given[column - start]
                if column + 1 < stop:
                    earlier = lost[column + 1 : stop]
                    value.addmv_(earlier.t(), weights[column + 1 : stop, column])
                nearest = grid.nearest(value, groups[column], rows)
                torch.sub(values[column], nearest, out=lost[column])
        if on_columns is not None:
            on_columns((end - start) * n)
    return lost
