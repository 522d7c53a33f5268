"""Give each layer of a static plan the scale of its activations."""

from __future__ import annotations

from dataclasses import replace

import torch

from ..errors import CalibrationError
from ..formats import Float8, StaticFloat8
from .calibration import Calibration
from .plan import LayerPlan, Plan

_FLOOR = 1e-12


def with_static_scales(plan: Plan, calibration: Calibration | None) -> Plan:
    """``plan`` with the input scale of every layer that is to have a static one.

    A layer that the calibration run never called stores the same weight and computes without FP8
    activations; its reason says so. CalibrationError: there is no calibration, or of another model.
    """
    static = [layer for layer in plan.quantized if isinstance(layer.format, StaticFloat8)]
    if not static:
        return plan
    if calibration is None:
        raise CalibrationError(
            f"{plan.requested} needs the scales of the activations of {len(static)} layers. "
            "Connect Calibrate Activations, or choose fp8-dynamic, which needs none."
        )
    if not any(layer.name in calibration.layers for layer in static):
        raise CalibrationError(
            f"The calibration is of another model: none of its {len(calibration.layers)} layers is "
            f"one of the {len(static)} to quantize. Calibrate the MODEL that is quantized."
        )
    return replace(plan, layers=tuple(_scaled(layer, calibration) for layer in plan.layers))


def _scaled(layer: LayerPlan, calibration: Calibration) -> LayerPlan:
    if not isinstance(layer.format, StaticFloat8):
        return layer
    seen = calibration.layers.get(layer.name)
    if seen is None:
        fmt = Float8(layer.format.dtype, layer.format.granularity)
        note = "weight-only: the calibration run never called it"
        after = fmt.nbytes(layer.shape) if layer.tied_to is None else 0
        return replace(layer, format=fmt, reason=note, bytes_after=after)
    scale = max(seen.maximum, _FLOOR) / torch.finfo(layer.format.storage).max
    return replace(layer, format=replace(layer.format, input_scale=scale))
