"""A configuration's forward loop: it runs the model, and its activations become static scales."""

from __future__ import annotations

from contextlib import ExitStack

import torch
from torch import nn

from ..config import QuantConfig
from ..errors import CalibrationError
from ..layers import layer_kind
from ..planning.calibration import ActivationStatistics, Calibration


def run_forward_loop(model: nn.Module, config: QuantConfig) -> Calibration | None:
    """The largest activation of every Linear while ``config.forward_loop(model)`` runs.

    None where ``config`` has no loop, or no scale that needs one. CalibrationError where the loop
    came through no layer, or met NaN or infinity. The model is left as it was.
    """
    loop = getattr(config, "forward_loop", None)
    if loop is None or config.checked_meaning().method != "fp8-static":
        return None
    statistics: dict[str, ActivationStatistics] = {}

    def watch(name: str):
        def before(layer: nn.Module, inputs: tuple) -> None:
            if inputs:
                statistics.setdefault(name, ActivationStatistics()).add(inputs[0])

        return before

    with torch.no_grad(), ExitStack() as hooks:
        for name, layer in model.named_modules():
            if layer_kind(layer) == "Linear":
                hooks.callback(layer.register_forward_pre_hook(watch(name)).remove)
        loop(model)
    if not statistics:
        raise CalibrationError(
            "forward_loop called no Linear layer of the model. Let it call model(...) on some "
            "inputs."
        )
    return Calibration({name: each.result() for name, each in statistics.items()})
