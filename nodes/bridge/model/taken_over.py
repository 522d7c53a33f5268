"""Layers that are quantized already and keep their codes: only how they are multiplied changes.

ComfyUI computes a text encoder in full precision also where its file is quantized. Its codes, read
as a format of ours that rounds activations, are multiplied as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

import comfy.utils
import torch
from comfy.model_patcher import ModelPatcher
from torch import nn

from ....quant_core.formats import Format, QuantizedWeight
from ....quant_core.layers import TABLE
from ....quant_core.planning.decisions import ALREADY, LayerPlan, Plan
from ....quant_core.sources import source_of
from ..tensor.stock_weight import stored_weight

_REASON = "its codes stay, and are multiplied as they are"
_FULL = "already quantized: its file asks for full precision"


def take_over(
    layers: Iterable[LayerPlan],
    model: nn.Module,
    reason_to_keep: Callable[[str], str | None],
    device: torch.device,
) -> tuple[LayerPlan, ...]:
    """``layers`` of ``model``, planned; those that are quantized already become layers to quantize
    where ``device`` multiplies their codes. reason_to_keep: as in ``plan_layers``."""
    return tuple(
        _taken(layer, model.get_submodule(layer.name), device)
        if layer.action == ALREADY and layer.kind != TABLE and reason_to_keep(layer.name) is None
        else layer
        for layer in layers
    )


def taken_weights(patcher: ModelPatcher, prefix: str, plan: Plan) -> dict[str, QuantizedWeight]:
    """The weights of the layers that ``take_over`` took, by their names in ``plan``; ``prefix`` +
    name is a layer's in ``patcher``."""
    return {
        layer.name: replace(
            stored_weight(comfy.utils.get_attr(patcher.model, f"{prefix}{layer.name}")),
            format=layer.format,
        )
        for layer in plan.quantized
        if layer.reason == _REASON
    }


def _taken(layer: LayerPlan, module: nn.Module, device: torch.device) -> LayerPlan:
    fmt = _multiplied(module, device)
    if fmt is None:
        return layer
    if getattr(module, "_full_precision_mm_config", False):
        return replace(layer, reason=_FULL)
    return replace(layer.in_format(fmt, _REASON), source=source_of(module).name)


def _multiplied(module: nn.Module, device: torch.device) -> Format | None:
    """The format in which ``device`` multiplies the codes of ``module`` by rounded activations."""
    stored = stored_weight(module)
    fmt = None if stored is None else stored.format.dynamic(stored.shape)
    return None if fmt is None or fmt.kernel(device).startswith("dequantize") else fmt
