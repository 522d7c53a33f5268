"""Round a layer that is smoothed and has a low-rank branch beside four-bit codes (SVDQuant).

Each column of the weight is multiplied by what its activations are divided by. How much of their
magnitude moves over is chosen among a few strengths by the output of the layer, its activations
rounded as the device rounds them. The best branch of the smoothed weight is taken out, and what is
left is compensated with the Hessian of the rounded activations that will meet it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from ..formats import Format, QuantizedWeight
from .candidate import Candidate
from .compensate import compensated, feedback_of
from .inputs import Inputs, damped
from .outcome import COMPENSATED, NEAREST

STRENGTHS = (0.0, 0.25, 0.5, 0.75)
"""Of smoothing: the exponent of the activations' largest magnitudes. 0 smooths nothing."""
_JUDGED_ROWS = 256
_SMALLEST_MAXIMUM, _MOST = 1e-5, 1e3
# Of the work of a layer, what choosing the smoothing takes, for progress.
_CHOOSING = 0.2


@dataclass(frozen=True)
class Split:
    """A weight apart. smooth: bfloat16 [K]; up [N, rank] and down [K, rank]: bfloat16, of what is
    not smoothed; rest: float32 [N, K], of the smoothed weight."""

    smooth: torch.Tensor
    up: torch.Tensor
    down: torch.Tensor
    rest: torch.Tensor

    @classmethod
    def of(cls, fmt: Format, weight: torch.Tensor, smooth: torch.Tensor) -> Split:
        """``weight`` (float32 [N, K]) smoothed by ``smooth``, its branch of ``fmt``'s rank."""
        factor = smooth.float()
        smoothed = weight * factor
        up, down = fmt.branch_of(smoothed)
        down = (down.float() / factor.unsqueeze(1)).bfloat16()
        rest = smoothed - up.float() @ (down.float() * factor.unsqueeze(1)).t()
        return cls(smooth, up, down, rest)

    def assemble(self, fmt: Format, rest: QuantizedWeight, dtype: torch.dtype) -> QuantizedWeight:
        """The weight of ``fmt`` with ``rest`` rounded."""
        return fmt.assemble(rest, self.smooth, self.up, self.down, dtype)

    def to_nearest(self, fmt: Format, dtype: torch.dtype) -> QuantizedWeight:
        """The weight of ``fmt`` with the rest rounded to nearest."""
        return self.assemble(fmt, fmt.residual_format.quantize(self.rest), dtype)


def smoothing(weight: torch.Tensor, rows: torch.Tensor, strength: float) -> torch.Tensor:
    """What activations are divided by, bfloat16 [K]: max|x| ** strength over
    max|w| ** (1 - strength), of geometric mean 1 (Xiao et al. 2022, arXiv 2211.10438)."""
    if not strength:
        return torch.ones(weight.shape[1], dtype=torch.bfloat16, device=weight.device)
    x, w = (each.abs().amax(0).clamp_min(_SMALLEST_MAXIMUM) for each in (rows, weight))
    ratio = x.log() * strength - w.log() * (1 - strength)
    return (ratio - ratio.mean()).exp().clamp(1 / _MOST, _MOST).bfloat16()


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
    splits = []
    judged = inputs.train[:_JUDGED_ROWS]
    for strength in STRENGTHS:
        split = Split.of(fmt, weight, smoothing(weight, inputs.train, strength))
        error = _error(fmt, split.to_nearest(fmt, dtype), weight, judged, None)
        if not splits or error < splits[0][0]:
            splits = [(error, split)]
        on_progress(_CHOOSING / len(STRENGTHS))
    split = splits[0][1]
    nearest = _candidate(NEAREST, split.to_nearest(fmt, dtype), weight, inputs, has_bias)
    plain = _error(fmt, fmt.quantize(weight), weight, inputs.held_out, None)
    rest = None
    if compensate:
        rest = _compensated(fmt, split, inputs, has_bias, on_progress)
    else:
        on_progress(1 - _CHOOSING)
    if rest is None:
        return nearest, None, plain
    stored = split.assemble(fmt, rest, dtype)
    return nearest, _candidate(COMPENSATED, stored, weight, inputs, has_bias), plain


def _compensated(
    fmt: Format,
    split: Split,
    inputs: Inputs,
    has_bias: bool,
    on_progress: Callable[[float], None],
) -> QuantizedWeight | None:
    """The rest of ``split`` in codes; None where the Hessian has no factor or there is no grid."""
    given = fmt.round_activations(inputs.train / split.smooth.float())
    hessian = damped(given - given.mean(0) if has_bias else given)
    importance = hessian.diagonal().clone()
    feedback = feedback_of(hessian)
    grid = fmt.residual_format.grid(split.rest, importance)
    if feedback is None or grid is None:
        on_progress(1 - _CHOOSING)
        return None
    share = (1 - _CHOOSING) / split.rest.numel()
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
