"""What the layers of a quantized MODEL are expected to do to the final latent."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ....quant_core.fit import Sensitivity, expected_effects
from ....quant_core.formats import Format
from ....quant_core.measure.relative_error import Error
from ....quant_core.methods import named_method
from ....quant_core.planning.decisions import LayerPlan
from .layer_errors import OutputSums


def probes_of(sensitivity: Sensitivity | None, layers: Iterable[LayerPlan]) -> dict[str, Format]:
    """By layer, the format that it was measured with; without a ``sensitivity`` none."""
    if sensitivity is None:
        return {}
    probe = named_method(sensitivity.probe).method
    chosen = {
        layer.name: probe.choose(tuple(layer.shape), "per-row").format
        for layer in layers
        if layer.name in sensitivity.effects
    }
    return {name: fmt for name, fmt in chosen.items() if fmt is not None}


def latent_effects(
    sensitivity: Sensitivity,
    layers: Iterable[LayerPlan],
    weights: Mapping[str, Error],
    outputs: Mapping[str, OutputSums],
) -> dict[str, float]:
    """The relative L2 of the final latent that each of ``layers`` is expected to make by itself:
    its measured effect, times its error over the probe's. The errors are those of ``outputs``, else
    of ``weights``, else the usual ones of the formats. Layers without a measured effect are left
    out."""
    layers = [layer for layer in layers if layer.name in sensitivity.effects]
    usual = expected_effects(sensitivity, (la for la in layers if la.format is not None))
    per_error = sensitivity.per_error(layer.name for layer in layers)
    found = {}
    for name in (layer.name for layer in layers):
        over_probe = outputs[name].over_probe if name in outputs else None
        if over_probe is not None:
            found[name] = sensitivity.effects[name] * over_probe
        elif name in weights:
            found[name] = per_error[name] * weights[name].relative_l2
        elif name in usual:
            found[name] = usual[name]
    return found


def how_measured(sampled: bool, compared: bool) -> str:
    """A sentence about what ``latent_effects`` rest on, for the report."""
    errors = "of the outputs" if sampled else "of the weights" if compared else "of the formats"
    return (
        f"latent L2: what the layer is expected to do by itself to the final latent, by the "
        f"sensitivity and the errors {errors}; layers add up in squares."
    )
