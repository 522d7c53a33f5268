"""Calibration: what reached a model's layers while it ran, as magnitudes and rows of inputs."""

from .activations import FEWEST_ROWS, ActivationStatistics, Calibration, LayerActivations
from .file import load_calibration, save_calibration
from .fingerprint import Fingerprint, fingerprint_of, require_same_model
from .observe import Observation, observe
from .row_reservoir import planned_rows, row_bytes

__all__ = [
    "FEWEST_ROWS",
    "ActivationStatistics",
    "Calibration",
    "Fingerprint",
    "LayerActivations",
    "Observation",
    "fingerprint_of",
    "load_calibration",
    "observe",
    "planned_rows",
    "require_same_model",
    "row_bytes",
    "save_calibration",
]
