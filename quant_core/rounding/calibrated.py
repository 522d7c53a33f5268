"""Round the layers of a plan by what reached them in a calibration run."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any

import torch

from ..calibration import FEWEST_ROWS, Calibration
from ..errors import CalibrationError, UnknownNameError
from ..formats import QuantizedWeight
from ..planning.decisions import LayerPlan
from .candidate import Candidate
from .compensate import compensated
from .inputs import Inputs, Preparation
from .low_rank_branch import round_with_branch
from .outcome import COMPENSATED, NEAREST, LayerRounding

AUTO = "auto"
ROUNDINGS = (AUTO, NEAREST, COMPENSATED)

# Work of a weight beside its products, in multiplications.
_OVERHEAD = 3000
_LARGEST_INPUT = 1e12
"""Squares of larger ones, summed over the outputs, leave float32's range."""


def cost_of(layer: LayerPlan) -> int:
    """About how many multiplications rounding ``layer`` with compensation takes, for progress."""
    n, k = layer.shape[0], layer.shape[-1]
    return 0 if layer.tied_to is not None else n * k * (k + _OVERHEAD) + k**3 // 3


def rounding_bytes(layer: LayerPlan) -> int:
    """About the most bytes that compensating ``layer`` takes beside what rounding it to nearest
    does: its Hessian, what of it is left and the factor, and six float32 copies of the layer."""
    n, k = layer.shape[0], layer.shape[-1]
    return 4 * (4 * k * k + 6 * n * k)


def require_rounding(rounding: str, calibration: Calibration | None) -> None:
    """UnknownNameError for a ``rounding`` that does not exist, CalibrationError for "compensated"
    without rows of a calibration."""
    if rounding not in ROUNDINGS:
        raise UnknownNameError("rounding", rounding, ROUNDINGS)
    if rounding == COMPENSATED and (calibration is None or not calibration.rows):
        found = "there is no calibration" if calibration is None else "the calibration has no rows"
        raise CalibrationError(
            f"rounding is compensated, but {found}. Connect Calibrate Activations (from Python: "
            "calibration=, of quant_core.observe), or choose auto."
        )


class CalibratedRounding:
    """Rounds one layer after another, and records the result of each.

    rounding: "auto" (the better of the two on rows held out), "nearest" or "compensated" (wherever
    it can be). biased: names of the layers that have a bias to correct. on_progress is called with
    the part of ``cost_of`` that was done since the last call; it may raise, to cancel.

    outcomes: by layer. bias_shifts: what is to be added to a layer's bias, float32 [N].
    """

    def __init__(
        self,
        calibration: Calibration,
        rounding: str = AUTO,
        biased: Collection[str] = (),
        on_progress: Callable[[int], None] | None = None,
    ):
        require_rounding(rounding, calibration)
        self._calibration = calibration
        self._rounding = rounding
        self._biased = frozenset(biased)
        self._on_progress = on_progress or (lambda cost: None)
        self._latest: tuple[tuple, Preparation] | None = None
        self.outcomes: dict[str, LayerRounding] = {}
        self.bias_shifts: dict[str, torch.Tensor] = {}

    def __call__(self, layer: LayerPlan, weight: torch.Tensor) -> QuantizedWeight:
        """``weight`` in ``layer.format``. Extra memory at the peak: the layer's Hessian, its
        factor, and three float32 copies of the layer."""
        reason = self._reason_not_to(layer)
        if reason is not None:
            self.outcomes[layer.name] = LayerRounding(NEAREST, note=f"to nearest: {reason}")
            self._on_progress(cost_of(layer))
            return layer.format.quantize(weight)
        has_bias = layer.name in self._biased
        rows = self._calibration.rows[layer.name]
        inputs = Inputs.of(rows.to(weight.device))
        values = weight.float()
        if layer.format.needs_calibration:
            return self._with_branch(layer, weight, values, inputs, has_bias)
        plain = Candidate.of(NEAREST, layer.format.quantize(weight), values, inputs, has_bias)
        best, note = plain, ""
        if self._rounding != NEAREST:
            other, note = self._compensated(layer, weight, values, inputs, has_bias)
            if other is not None and self._is_better(other, plain):
                best = other
            elif other is not None:
                note = "to nearest: compensated rounding was no better on rows held out"
        return self._keep(layer, best, plain.error_without_shift, note)

    def _with_branch(
        self,
        layer: LayerPlan,
        weight: torch.Tensor,
        values: torch.Tensor,
        inputs: Inputs,
        has_bias: bool,
    ) -> QuantizedWeight:
        """As ``__call__``, for a format that is smoothed and has a low-rank branch."""
        nearest, other, plain_error = round_with_branch(
            layer.format,
            values,
            weight.dtype,
            inputs,
            has_bias,
            self._rounding != NEAREST,
            lambda part: self._on_progress(int(part * cost_of(layer))),
        )
        best, note = nearest, ""
        if other is not None and self._is_better(other, nearest):
            best = other
        elif self._rounding != NEAREST:
            note = "to nearest: compensated rounding was no better on rows held out"
        return self._keep(layer, best, plain_error, note)

    def _keep(
        self, layer: LayerPlan, best: Candidate, plain_error: float, note: str
    ) -> QuantizedWeight:
        self.outcomes[layer.name] = LayerRounding(
            best.way,
            best.weight_error,
            best.output_error,
            plain_error,
            best.shift is not None,
            note,
        )
        if best.shift is not None:
            self.bias_shifts[layer.name] = best.shift
        return best.stored

    def order_of(self, layer: str) -> dict[str, Any]:
        """What another process needs to round ``layer`` as this object would: plain values."""
        return {
            "way": self._rounding,
            "rows": self._calibration.rows.get(layer),
            "biased": layer in self._biased,
        }

    def _reason_not_to(self, layer: LayerPlan) -> str | None:
        """Why the calibration has nothing about ``layer``."""
        rows = self._calibration.rows.get(layer.name)
        if layer.kind != "Linear":
            return f"a {layer.kind} is not calibrated"
        if rows is None:
            return "the calibration has no rows of its inputs"
        if len(rows) < FEWEST_ROWS:
            return f"the calibration has fewer than {FEWEST_ROWS} rows of its inputs"
        if not rows.any():
            return "its inputs were zero throughout the calibration"
        if not rows.abs().amax() < _LARGEST_INPUT:
            return f"its inputs hold NaN, or more than {_LARGEST_INPUT:g}, in the calibration"
        return None

    def _is_better(self, other: Candidate, plain: Candidate) -> bool:
        return self._rounding == COMPENSATED or other.output_error < plain.output_error

    def _compensated(
        self,
        layer: LayerPlan,
        weight: torch.Tensor,
        values: torch.Tensor,
        inputs: Inputs,
        has_bias: bool,
    ) -> tuple[Candidate | None, str]:
        """The layer rounded with compensation; or None, and why not."""
        fmt = layer.format
        prepared = self._prepared(layer, inputs, has_bias, weight.device)
        if prepared.feedback is None:
            self._on_progress(cost_of(layer))
            return None, "to nearest: the Hessian of its inputs has no Cholesky factor"
        turned = fmt.in_own_basis(weight)
        grid = fmt.grid(turned, prepared.importance)
        if grid is None:
            self._on_progress(cost_of(layer))
            return None, f"to nearest: {fmt} has no scales along rows"
        n, k = layer.shape
        self._on_progress(cost_of(layer) - n * k * (k + _OVERHEAD))
        rounded = compensated(
            turned,
            grid,
            prepared.feedback,
            lambda done: self._on_progress(done * (k + _OVERHEAD)),
        )
        stored = replace(grid.store(rounded), dtype=weight.dtype)
        return Candidate.of(COMPENSATED, stored, values, inputs, has_bias), ""

    def _prepared(
        self, layer: LayerPlan, inputs: Inputs, about_mean: bool, device: torch.device
    ) -> Preparation:
        """Of q, k and v, which are given the same rows, one after another, it is made once."""
        key = (id(self._calibration.rows[layer.name]), layer.format, about_mean, device)
        if self._latest is None or self._latest[0] != key:
            self._latest = None
            self._latest = (key, Preparation.of(inputs, layer.format, about_mean))
        return self._latest[1]


def shifted_bias(bias: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
    """``bias`` + ``shift``, both [N], in float32 and rounded once to the bias's dtype."""
    return (bias.float() + shift.to(bias.device)).to(bias.dtype)
