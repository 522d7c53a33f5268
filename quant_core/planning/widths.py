"""Layers that a preset stores in INT8 where the method would give them few bits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from ..formats import Int8
from ..patterns import first_match
from ..presets import Preset
from .decisions import ALREADY, LayerPlan


def with_preset_widths(layers: Sequence[LayerPlan], preset: Preset | None) -> tuple[LayerPlan, ...]:
    """``layers`` with those in INT8 that ``preset`` raises at the width they were given.

    Their activations are rounded to INT8 where the format they had did so. A layer that shares its
    weight goes with the layer that carries it.
    """
    if preset is None or not preset.raised:
        return tuple(layers)
    done: dict[str, LayerPlan] = {}
    for layer in layers:
        carrier = done.get(layer.tied_to or "")
        if carrier is not None and layer.format is not None:
            done[layer.name] = replace(layer, format=carrier.format, reason=carrier.reason)
        else:
            done[layer.name] = _raised(layer, preset)
    return tuple(done.values())


def _raised(layer: LayerPlan, preset: Preset) -> LayerPlan:
    if layer.format is None or layer.kind != "Linear":
        return layer
    bits = 8 * layer.format.nbytes(layer.shape) / math.prod(layer.shape)
    for rule in preset.raised:
        pattern = first_match(rule.layers, layer.name)
        if pattern is None or bits > rule.bits:
            continue
        fmt = Int8("per-row", "int8" if layer.format.activations == "int8" else None)
        after = fmt.nbytes(layer.shape) if layer.tied_to is None else 0
        if after >= layer.bytes_before > 0:
            if layer.source is None:
                continue
            return _left(layer, f"preset {preset.name} raises {pattern} above {rule.bits:g} bits")
        reason = f"INT8: preset {preset.name} raises {pattern} to it at up to {rule.bits:g} bits"
        return layer.in_format(fmt, reason)
    return layer


def _left(layer: LayerPlan, why: str) -> LayerPlan:
    """``layer``, which was quantized before, as it was: that is not larger than what it would be
    raised to."""
    reason, size = f"already quantized: {layer.source}; {why}", layer.bytes_before
    return replace(layer, action=ALREADY, reason=reason, format=None, bytes_after=size, source=None)
