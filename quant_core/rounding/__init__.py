"""Rounding by a calibration: later columns of a weight compensate the errors of earlier ones, and
the bias absorbs the mean error."""

from .calibrated import (
    AUTO,
    ROUNDINGS,
    CalibratedRounding,
    cost_of,
    require_rounding,
    rounding_bytes,
    shifted_bias,
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
    "shifted_bias",
]
