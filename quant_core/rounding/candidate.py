"""One way to round a layer, measured.

Tested by tests/quant_core/rounding/test_calibrated.py.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..formats import QuantizedWeight
from .inputs import Inputs


@dataclass(frozen=True)
class Candidate:
    """One way to round a layer. shift: of its bias, float32 [N]; None where it has none, or where
    correcting it would not help. output_error: with that shift, on rows that the rounding did not
    see."""

    way: str
    stored: QuantizedWeight
    shift: torch.Tensor | None
    output_error: float
    weight_error: float
    error_without_shift: float

    @classmethod
    def of(
        cls,
        way: str,
        stored: QuantizedWeight,
        weight: torch.Tensor,
        inputs: Inputs,
        has_bias: bool,
    ) -> Candidate:
        """Measures ``stored`` against ``weight``, float32 [N, K]."""
        error = stored.dequantize(torch.float32).sub_(weight)
        size = torch.linalg.vector_norm(weight).clamp_min(1e-30)
        weight_error = (torch.linalg.vector_norm(error) / size).item()
        as_it_was = inputs.output_error(error, weight, None)
        if has_bias:
            shift = inputs.shift(error)
            shifted = inputs.output_error(error, weight, shift)
            if shifted < as_it_was:
                return cls(way, stored, shift, shifted, weight_error, as_it_was)
        return cls(way, stored, None, as_it_was, weight_error, as_it_was)
