"""What quantized layers are expected to do to the final latent, from a measured sensitivity."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from types import MappingProxyType

from ..planning.decisions import LayerPlan
from ..rounding import LayerRounding
from .candidates import format_error
from .sensitivity import Sensitivity

_SHOWN = 3


def expected_effects(
    sensitivity: Sensitivity,
    layers: Iterable[LayerPlan],
    rounding: Mapping[str, LayerRounding] = MappingProxyType({}),
) -> dict[str, float]:
    """The relative L2 of the final latent that each of ``layers``, planned and quantized, is
    expected to make by itself. Layers that were not measured are left out.

    It is the measured effect times the error of the layer's format over the probe's. Where a
    calibration has rounded the layer (``rounding``, by layer), times its output error over that of
    rounding to nearest. What rounding activations costs is not in it.
    """
    measured = [layer for layer in layers if layer.name in sensitivity.effects]
    per_error = sensitivity.per_error(layer.name for layer in measured)
    return {
        layer.name: per_error[layer.name]
        * format_error(layer.format)
        * _gain(rounding.get(layer.name))
        for layer in measured
    }


def _gain(rounded: LayerRounding | None) -> float:
    if rounded is None or rounded.output_error is None or not rounded.nearest_error:
        return 1.0
    return rounded.output_error / rounded.nearest_error


def in_all(effects: Iterable[float]) -> float:
    """The effect of all layers together: effects of single ones add in squares."""
    return math.sqrt(sum(effect * effect for effect in effects))


def effect_lines(effects: Mapping[str, float]) -> list[str]:
    """The effect of all layers together, and the layers of largest effect, as one line of a report;
    none where nothing was measured."""
    if not effects:
        return []
    ranked = sorted(effects, key=effects.__getitem__, reverse=True)[:_SHOWN]
    most = ", ".join(f"{name} {effects[name]:.4f}" for name in ranked)
    whole = in_all(effects.values())
    return [f"expected change of the final latent: {whole:.4f} in all; most of it by {most}"]
