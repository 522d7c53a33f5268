"""A weight in one of ComfyUI's own layouts, or in plain FP8, read as a QuantizedWeight.

Our formats of the same codes lie in memory as ComfyUI's do, so nothing is rounded.

Tested by tests/nodes/bridge/model/test_taken_over.py.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from comfy.quant_ops import QuantizedTensor
from torch import nn

from ....quant_core.formats import MXFP8, NVFP4, Float8, Format, Int8, Int8ConvRot, QuantizedWeight
from .layout import is_ours, weight_of

Stored = tuple[Format, dict[str, torch.Tensor]]


def stored_weight(layer: nn.Module) -> QuantizedWeight | None:
    """The weight of ``layer`` as it is stored, over the same memory, activations not rounded. None
    where it is in floats, or stored in a way that is not read here."""
    weight = layer._parameters.get("weight")
    if is_ours(weight):
        stored = weight_of(weight._qdata, weight._params)
        return QuantizedWeight.of_parts(
            stored.format.weight_only(), stored.tensors, stored.shape, stored.dtype
        )
    if isinstance(weight, QuantizedTensor):
        read = _LAYOUTS.get(weight._layout_cls)
        if read is None or getattr(layer, "pre_quant_scale", None) is not None:
            return None
        fmt, parts = read(weight._params)
        parts["qdata"] = weight._qdata
        return QuantizedWeight.of_parts(fmt, parts, tuple(weight.shape), weight.dtype)
    if type(weight) is nn.Parameter and weight.dtype is torch.float8_e4m3fn:
        parts = {"qdata": weight.detach(), "scale": torch.ones((), device=weight.device)}
        fmt = Float8(granularity="per-tensor")
        return QuantizedWeight.of_parts(fmt, parts, tuple(weight.shape), torch.float32)
    return None


def _int8(params: object) -> Stored:
    scale = params.scale.float()
    if getattr(params, "convrot", False):
        return Int8ConvRot(params.convrot_groupsize), {"scale": scale.reshape(-1, 1)}
    if scale.numel() == 1:
        return Int8("per-tensor"), {"scale": scale.reshape(())}
    return Int8("per-row"), {"scale": scale.reshape(-1, 1)}


def _float8(params: object) -> Stored:
    return Float8(granularity="per-tensor"), {"scale": params.scale.float().reshape(())}


def _nvfp4(params: object) -> Stored:
    return NVFP4(), {"scale": params.block_scale, "scale_2": params.scale.float().reshape(())}


def _mxfp8(params: object) -> Stored:
    return MXFP8(), {"scale": params.scale.view(torch.uint8)}


# By ComfyUI's name of the layout.
_LAYOUTS: dict[str, Callable[[object], Stored]] = {
    "TensorWiseINT8Layout": _int8,
    "TensorCoreFP8Layout": _float8,
    "TensorCoreFP8E4M3Layout": _float8,
    "TensorCoreNVFP4Layout": _nvfp4,
    "TensorCoreMXFP8Layout": _mxfp8,
}
