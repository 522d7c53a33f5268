"""Rounding that looks at what reaches a layer: columns make good each other's errors, biases the
mean."""

from .calibrated import (
    AUTO,
    ROUNDINGS,
    CalibratedRounding,
    cost_of,
    require_rounding,
    rounding_bytes,
)
from .outcome import LayerRounding, rounding_lines

__all__ = [
    "AUTO",
    "ROUNDINGS",
    "CalibratedRounding",
    "LayerRounding",
    "cost_of",
    "require_rounding",
    "rounding_bytes",
    "rounding_lines",
]
