"""Rounding that looks at what reaches a layer: columns make good each other's errors, biases the
mean."""

from .calibrated import AUTO, ROUNDINGS, CalibratedRounding, cost_of, require_rounding
from .outcome import LayerRounding, rounding_lines

__all__ = [
    "AUTO",
    "ROUNDINGS",
    "CalibratedRounding",
    "LayerRounding",
    "cost_of",
    "require_rounding",
    "rounding_lines",
]
