"""Round a layer that is smoothed and has a low-rank branch beside four-bit codes (SVDQuant).

Each column of the weight is multiplied by what its activations are divided by: a power of their
root mean square. Which one is chosen by the output of the layer, its activations rounded as the
device rounds them. The best branch of the smoothed weight is taken out; what is left is compensated
with the Hessian of the rounded activations that will meet it; then the branch is fitted again, to
what rounding has left of the output.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from ..formats import Format, QuantizedWeight
from ..formats.svdquant import leading
from .candidate import Candidate
from .compensate import compensated, feedback_of
from .inputs import Inputs, damped
from .outcome import COMPENSATED, NEAREST

STRENGTHS = (0.0, 0.5, 0.75, 1.0)
"""The strengths of smoothing that are tried: exponents of the activations' root mean square. 0
smooths nothing. Smoothing by the largest magnitude errs more: 0.098 where this has 0.091, in four
INT4 layers of MiniLM."""
_JUDGED_ROWS = 256
_SMALLEST, _MOST = 1e-5, 1e3
# The share of its mean diagonal that is added to the Hessian by which the branch is fitted.
_DAMP = 0.03
# For progress: the shares of a layer's work that are choosing the smoothing and fitting the branch.
_CHOOSING, _FITTING = 0.15, 0.1


@dataclass(frozen=True)
class Split:
    """A weight apart. smooth: float32 [K], as its format stores it. up [N, rank] and down
    [K, rank]: bfloat16, of what is not smoothed. rest: float32 [N, K], of the smoothed weight, as
    its format rounds it."""

    smooth: torch.Tensor
    up: torch.Tensor
    down: torch.Tensor
    rest: torch.Tensor

    @classmethod
    def of(cls, fmt: Format, weight: torch.Tensor, smooth: torch.Tensor) -> Split:
        """``weight`` (float32 [N, K]) smoothed by ``smooth``, its branch of ``fmt``'s rank."""
        smooth = fmt.storable_smoothing(smooth)
        smoothed = weight * smooth
        up, down = fmt.branch_of(smoothed)
        down = (down.float() / smooth.unsqueeze(1)).bfloat16()
        rest = smoothed - up.float() @ (down.float() * smooth.unsqueeze(1)).t()
        return cls(smooth, up, down, fmt.in_own_basis(rest))

    def assemble(self, fmt: Format, rest: QuantizedWeight, dtype: torch.dtype) -> QuantizedWeight:
        """The weight of ``fmt`` with ``rest`` rounded."""
        return fmt.assemble(rest, self.smooth, self.up, self.down, dtype)

    def to_nearest(self, fmt: Format, dtype: torch.dtype) -> QuantizedWeight:
        """The weight of ``fmt`` with the rest rounded to nearest."""
        return self.assemble(fmt, fmt.residual_format.quantize(self.rest), dtype)

    def refitted(
        self, fmt: Format, rest: QuantizedWeight, rows: torch.Tensor, about_mean: bool
    ) -> Split:
        """The same with the branch of least error of the output for ``rows``, where the rest is
        ``rest``, rounded, and its activations are rounded too. about_mean: as in ``Inputs``."""
        if not fmt.rank:
            return self
        smoothed = rows / self.smooth
        turned = fmt.in_own_basis(smoothed)
        given = fmt.round_activations(turned)
        lost = turned @ self.rest.t() - given @ rest.dequantize(torch.float32).t()
        if about_mean:
            smoothed, lost = smoothed - smoothed.mean(0), lost - lost.mean(0)
        hessian = (smoothed.t() @ smoothed).div_(len(rows))
        diagonal = hessian.diagonal()
        diagonal.add_(diagonal.mean() * _DAMP)
        factor, info = torch.linalg.cholesky_ex(hessian)
        if info.item():
            return self
        more = torch.cholesky_solve(smoothed.t() @ lost / len(rows), factor).t()
        scale = self.smooth.unsqueeze(1)
        whole = self.up.float() @ (self.down.float() * scale).t() + more
        up, down = leading(whole @ factor, fmt.rank)
        down = torch.linalg.solve_triangular(factor.t(), down, upper=True) / scale
        return replace(self, up=up.bfloat16(), down=down.bfloat16().contiguous())


def smoothing(rows: torch.Tensor, strength: float) -> torch.Tensor:
    """What the activations ``rows`` [rows, K] are divided by, float32 [K]: the root of their mean
    square, to the power ``strength``, of geometric mean 1."""
    size = rows.square().mean(0).sqrt_().clamp_min_(_SMALLEST).log_().mul_(strength)
    return (size - size.mean()).exp_().clamp_(1 / _MOST, _MOST)


def round_with_branch(
    fmt: Format,
    weight: torch.Tensor,
    dtype: torch.dtype,
    inputs: Inputs,
    has_bias: bool,
    compensate: bool,
    on_progress: Callable[[float], None],
) -> tuple[Candidate, Candidate | None, float]:
    """The layer rounded to nearest and compensated, and the output error of neither smoothing nor
    looking at activations at all.

    weight: float32 [N, K], of ``dtype`` before. on_progress is called with shares of the work that
    come to 1; it may raise, to cancel.
    """
    best, split = float("inf"), None
    judged = inputs.train[:_JUDGED_ROWS]
    for strength in STRENGTHS:
        tried = Split.of(fmt, weight, smoothing(inputs.train, strength))
        error = _error(fmt, tried.to_nearest(fmt, dtype), weight, judged, None)
        if split is None or error < best:
            best, split = error, tried
        on_progress(_CHOOSING / len(STRENGTHS))
    nearest = _candidate(NEAREST, split.to_nearest(fmt, dtype), weight, inputs, has_bias)
    plain = _error(fmt, fmt.quantize(weight), weight, inputs.held_out, None)
    rest = _compensated(fmt, split, inputs, has_bias, on_progress) if compensate else None
    if rest is None:
        on_progress(1 - _CHOOSING)
        return nearest, None, plain
    found = [
        _candidate(COMPENSATED, each.assemble(fmt, rest, dtype), weight, inputs, has_bias)
        for each in (split, split.refitted(fmt, rest, inputs.train, has_bias))
    ]
    on_progress(_FITTING)
    return nearest, min(found, key=lambda each: each.output_error), plain


def _compensated(
    fmt: Format,
    split: Split,
    inputs: Inputs,
    has_bias: bool,
    on_progress: Callable[[float], None],
) -> QuantizedWeight | None:
    """The rest of ``split`` in codes; None where the Hessian has no factor or there is no grid."""
    given = fmt.round_activations(fmt.in_own_basis(inputs.train / split.smooth))
    hessian = damped(given - given.mean(0) if has_bias else given)
    importance = hessian.diagonal().clone()
    feedback = feedback_of(hessian)
    grid = fmt.residual_format.grid(split.rest, importance)
    if feedback is None or grid is None:
        return None
    share = (1 - _CHOOSING - _FITTING) / split.rest.numel()
    rounded = compensated(split.rest, grid, feedback, lambda done: on_progress(done * share))
    return grid.store(rounded)


def _candidate(
    way: str, stored: QuantizedWeight, weight: torch.Tensor, inputs: Inputs, has_bias: bool
) -> Candidate:
    fmt = stored.format
    difference = stored.dequantize(torch.float32).sub_(weight)
    size = torch.linalg.vector_norm(weight).clamp_min(1e-30)
    weight_error = (torch.linalg.vector_norm(difference) / size).item()
    as_it_was = _error(fmt, stored, weight, inputs.held_out, None)
    if has_bias:
        lost = fmt.emulated(inputs.train, stored, None) - inputs.train @ weight.t()
        shift = -lost.mean(0)
        shifted = _error(fmt, stored, weight, inputs.held_out, shift)
        if shifted < as_it_was:
            return Candidate(way, stored, shift, shifted, weight_error, as_it_was)
    return Candidate(way, stored, None, as_it_was, weight_error, as_it_was)


def _error(
    fmt: Format,
    stored: QuantizedWeight,
    weight: torch.Tensor,
    rows: torch.Tensor,
    shift: torch.Tensor | None,
) -> float:
    """Relative L2 of the layer's output for ``rows``, rounded as the device rounds them."""
    expected = rows @ weight.t()
    lost = fmt.emulated(rows, stored, shift).sub_(expected)
    size = torch.linalg.vector_norm(expected).clamp_min(1e-30)
    return (torch.linalg.vector_norm(lost) / size).item()
