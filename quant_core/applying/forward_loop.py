"""A configuration's forward loop: it runs the model, and its activations become static scales.

Tested by tests/quant_core/applying/test_configurations.py.
"""

from __future__ import annotations

import torch
from torch import nn

from ..calibration import Calibration, observe
from ..config import QuantConfig
from ..errors import CalibrationError


def run_forward_loop(model: nn.Module, config: QuantConfig) -> Calibration | None:
    """The largest activation of every Linear while ``config.forward_loop(model)`` runs.

    None where ``config`` has no loop, or no scale that needs one. CalibrationError where the loop
    came through no layer, or met NaN or infinity. The model is left as it was.
    """
    loop = getattr(config, "forward_loop", None)
    if loop is None or config.checked_meaning().method != "fp8-static":
        return None
    with torch.no_grad(), observe(model, rows=0) as seen:
        loop(model)
    calibration = seen.calibration
    if not calibration.layers:
        raise CalibrationError(
            "forward_loop called no Linear layer of the model. Let it call model(...) on some "
            "inputs."
        )
    return calibration
