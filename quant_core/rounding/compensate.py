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
# Columns whose order is settled at once: so many, and no more such steps than that.
_ORDERED, _STEPS = 32, 16
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

    What is lost is the sum of D, so no column should have a large one. The column that is rounded
    last has its whole diagonal for D, the one before it what is left of its own without what the
    last explains, and so on. So from the last to the first, those of which least is left are taken,
    some at a time, and what they explain is taken from the others: a Cholesky factorization with
    the smallest pivots first. In a rotated basis, where all diagonals are much alike, their order
    alone says little: W4A8 errs by 0.0342 in the miniature's latent by that, and by 0.0260 so.
    """
    k, device = len(hessian), hessian.device
    taken = max(_ORDERED, -(-k // _STEPS))
    factor = torch.zeros_like(hessian)
    rest, left, places = torch.arange(k, device=device), hessian, []
    for start in range(0, k, taken):
        end = min(start + taken, k)
        order = left.diagonal().argsort()
        now, later = order[: end - start], order[end - start :].sort().values
        own, info = torch.linalg.cholesky_ex(left[now[:, None], now])
        if info.item() or not torch.isfinite(own.diagonal()).all():
            return None
        factor[rest[now], start:end] = own
        across = left.index_select(0, now).index_select(1, later)
        shared = torch.linalg.solve_triangular(own, across, upper=False)
        factor[rest[later], start:end] = shared.t()
        left = left.index_select(0, later).index_select(1, later)
        left.addmm_(shared.t(), shared, alpha=-1)
        places.append(rest[now])
        rest = rest[later]
    order = torch.cat(places)
    factor = factor[order]
    return Feedback(order.flip(0), factor.div_(factor.diagonal().clone()))


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
