"""Carry out a plan one layer at a time: read, quantize, release.

Nothing is attached here. The caller gets all quantized weights, or an exception and a model that
was never touched; what lives meanwhile is the result and one layer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container

import torch

from ..errors import ModuleError, NonFiniteWeightError
from ..formats import QuantizedWeight
from ..kernels.blocks import GPU_BLOCK
from ..planning.decisions import LayerPlan, Plan
from .transfer import Transfer

# Beside a weight and one copy of it, which some formats pad: no format takes more bytes for each of
# the values that it looks at together.
_WORKING_BYTES = 64 * GPU_BLOCK


def quantizing_bytes(plan: Plan, patched: Container[str] = ()) -> int:
    """The most bytes that ``quantize_plan`` holds on a GPU at a time: its results return to where
    the weights wait.

    That is for the layer that takes most its weight, twice, its result, and 256 MiB. patched:
    layers whose weights arrive in float32, with patches added on the GPU; so do those that are
    dequantized there.
    """
    layers = [
        _layer_bytes(layer, layer.name in patched or layer.source is not None)
        for layer in plan.quantized
    ]
    return max(layers, default=0) + _WORKING_BYTES


def _layer_bytes(layer: LayerPlan, patched: bool) -> int:
    # A patch is added to a float32 copy, out of place, and is as large itself.
    weight = 3 * 4 * math.prod(layer.shape) if patched else 2 * layer.bytes_before
    return weight + layer.bytes_after + layer.format.copies * 4 * math.prod(layer.shape)


def quantize_plan(
    plan: Plan,
    read_weight: Callable[[str], torch.Tensor],
    *,
    device: torch.device | str | None = None,
    on_layer: Callable[[LayerPlan], None] | None = None,
    round_layer: Callable[[LayerPlan, torch.Tensor], QuantizedWeight] | None = None,
    quantizer: Callable[[LayerPlan], QuantizedWeight] | None = None,
) -> dict[str, QuantizedWeight]:
    """Quantizes every layer that ``plan`` says, in its order; returns the weights by layer name.

    read_weight(layer name) gives the float weight. device: where the arithmetic runs (default:
    where the weight is); results return to where the weight was. on_layer is called before each
    layer and may raise, to cancel. round_layer: gives a layer's weight in its format, such as a
    ``CalibratedRounding``; without it, ``layer.format.quantize``. quantizer: quantizes a layer
    elsewhere, such as a ``RayQuantizer``; then the arguments before it but the plan are its own.
    NonFiniteWeightError names the layer.
    """
    results: dict[str, QuantizedWeight] = {}
    quantize = quantizer or layer_quantizer(read_weight, device, round_layer)
    for layer in plan.quantized:
        if on_layer is not None:
            on_layer(layer)
        tied = layer.tied_to is not None
        results[layer.name] = results[layer.tied_to] if tied else quantize(layer)
    return results


def layer_quantizer(
    read_weight: Callable[[str], torch.Tensor],
    device: torch.device | str | None = None,
    round_layer: Callable[[LayerPlan, torch.Tensor], QuantizedWeight] | None = None,
) -> Callable[[LayerPlan], QuantizedWeight]:
    """What quantizes one layer of a plan; arguments and errors as in ``quantize_plan``."""
    transfer = Transfer()
    round_layer = round_layer or to_nearest

    def quantize(layer: LayerPlan) -> QuantizedWeight:
        weight = read_weight(layer.name)
        home = weight.device
        require_values(layer.name, weight)
        try:
            quantized = round_layer(layer, transfer.to(weight, device or home))
        except NonFiniteWeightError as error:
            raise NonFiniteWeightError(
                f"{layer.name}.weight holds NaN or infinity. "
                f"Exclude {layer.name!r}, or repair the checkpoint."
            ) from error
        return quantized.map(lambda part: transfer.to(part, home))

    return quantize


def require_values(layer: str, weight: torch.Tensor) -> None:
    """ModuleError where the ``weight`` of ``layer`` is on the meta device."""
    if weight.is_meta:
        raise ModuleError(
            f"{layer}.weight is on the meta device and has no values. Load the weights of the "
            "model first; plan_component needs none."
        )


def to_nearest(layer: LayerPlan, weight: torch.Tensor) -> QuantizedWeight:
    """``weight`` in the layer's format, each value by itself."""
    return layer.format.quantize(weight)
