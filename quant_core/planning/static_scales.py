"""Give each layer of a static plan the scale of its activations."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from ..calibration import Calibration
from ..errors import CalibrationError
from .decisions import LayerPlan, Plan


def with_static_scales(plan: Plan, calibration: Calibration | None) -> Plan:
    """Returns ``plan`` with the measured scale in the format of every layer that needs one.

    A layer that the calibration run never called stores the same weight and computes without FP8
    activations; its reason says so. CalibrationError: there is no calibration, or it is of another
    model.
    """
    static = [layer for layer in plan.quantized if layer.format.needs_input_scale]
    if not static:
        return plan
    if calibration is None:
        raise CalibrationError(
            f"{plan.requested} needs the scales of the activations of {len(static)} layers. "
            "Connect Calibrate Activations (in Python: pass calibration=), or choose fp8-dynamic, "
            "which needs none."
        )
    require_known(static, calibration.layers)
    return replace(plan, layers=tuple(_scaled(layer, calibration) for layer in plan.layers))


def require_known(layers: Collection[LayerPlan], measured: Collection[str]) -> None:
    """CalibrationError where none of ``layers`` is among the names that a calibration
    ``measured``."""
    if not any(layer.name in measured for layer in layers):
        raise CalibrationError(
            f"The calibration is of another model: none of its {len(measured)} layers is "
            f"one of the {len(layers)} to quantize. Calibrate the MODEL that is quantized."
        )


def _scaled(layer: LayerPlan, calibration: Calibration) -> LayerPlan:
    if layer.format is None or not layer.format.needs_input_scale:
        return layer
    seen = calibration.layers.get(layer.name)
    if seen is None:
        note = "weight-only: the calibration run never called it"
        return layer.in_format(layer.format.weight_only(), note)
    return replace(layer, format=layer.format.with_activation_maximum(seen.maximum))
