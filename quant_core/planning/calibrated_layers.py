"""Give the layers of a plan what a calibration measured of their inputs."""

from __future__ import annotations

from dataclasses import replace

from ..calibration import FEWEST_ROWS, Calibration
from ..errors import CalibrationError
from ..formats import Int8
from .decisions import LayerPlan, Plan
from .static_scales import require_known, with_static_scales


def with_calibration(plan: Plan, calibration: Calibration | None) -> Plan:
    """Returns ``plan`` with static scales, as ``with_static_scales`` gives them, and with INT8 in
    place of a format that looks at rows of a layer's inputs where the calibration has none.

    CalibrationError: formats need the calibration and there is none, it has no rows, or it is of
    another model.
    """
    plan = with_static_scales(plan, calibration)
    needing = [layer for layer in plan.quantized if layer.format.needs_calibration]
    if not needing:
        return plan
    if calibration is None or not calibration.rows:
        found = "there is no calibration" if calibration is None else "the calibration has none"
        raise CalibrationError(
            f"{plan.requested} needs rows of the inputs of {len(needing)} layers, but {found}. "
            "Connect Calibrate Activations (from Python: calibration=, of quant_core.observe), or "
            "choose w4a8, which needs none."
        )
    require_known(needing, calibration.rows)
    return replace(plan, layers=tuple(_known(layer, calibration) for layer in plan.layers))


def _known(layer: LayerPlan, calibration: Calibration) -> LayerPlan:
    if layer.format is None or not layer.format.needs_calibration:
        return layer
    rows = calibration.rows.get(layer.tied_to or layer.name, calibration.rows.get(layer.name))
    if rows is not None and len(rows) >= FEWEST_ROWS:
        return layer
    found = "no" if rows is None else f"only {len(rows)}"
    return layer.in_format(
        Int8("per-row"), f"INT8: the calibration has {found} rows of its inputs"
    )
