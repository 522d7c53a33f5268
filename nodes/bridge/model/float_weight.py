"""A weight of a ModelPatcher in floats, with the LoRAs that wait on the patcher.

Tested by tests/nodes/test_quantization_report.py.
"""

from __future__ import annotations

import comfy.lora
import comfy.model_management
import comfy.utils
import torch
from comfy.model_patcher import ModelPatcher
from comfy.quant_ops import QuantizedTensor

from ....quant_core.detect import FLOAT8_DTYPES, quantized_as
from ....quant_core.sources import float_weight

MODEL = "diffusion_model."


def unload(patcher: ModelPatcher) -> None:
    """Put the pristine weights back: while a clone is loaded, its LoRAs sit in the shared ones."""
    comfy.model_management.unload_model_and_clones(patcher)
    patcher.detach()


def is_readable(weight: torch.Tensor) -> bool:
    """Whether ``effective_weight`` can turn it into floats: not those of foreign packs."""
    readable = isinstance(weight, QuantizedTensor) or weight.dtype in FLOAT8_DTYPES
    return readable or quantized_as(weight) is None


def patched_weight(
    patcher: ModelPatcher, key: str, weight: torch.Tensor, device: torch.device
) -> torch.Tensor:
    """``weight``, a float tensor called ``key``, with the patches of that name: a new float32
    tensor on ``device``."""
    values = weight.to(device=device, dtype=torch.float32, copy=True)
    if key not in patcher.patches:
        return values
    return comfy.lora.calculate_weight(patcher.patches[key], values, key)


def source_weight(patcher: ModelPatcher, key: str, device: torch.device | None) -> torch.Tensor:
    """The weight to quantize, called ``key``, of an unloaded ``patcher``: as it is stored, or where
    it has patches or is quantized already, float32. They are added, and it is dequantized, on
    ``device`` (None: where the weight is)."""
    layer = comfy.utils.get_attr(patcher.model, key.removesuffix(".weight"))
    home = layer.weight.device
    weight = float_weight(layer, device)
    if key in patcher.patches:
        weight = patched_weight(patcher, key, weight, device or home)
    return weight.to(home)


def effective_weight(patcher: ModelPatcher, layer: str, device: torch.device) -> torch.Tensor:
    """The weight that ``layer`` of the diffusion model computes with, LoRAs included: float32 on
    ``device``, dequantized. ``patcher`` must be unloaded (``unload``)."""
    key = f"{MODEL}{layer}.weight"
    weight = comfy.utils.get_attr(patcher.model, key).detach()
    if isinstance(weight, QuantizedTensor):
        weight = weight.dequantize()
    return patched_weight(patcher, key, weight, device)


def patched_shape(patcher: ModelPatcher, key: str, weight: torch.Tensor) -> torch.Size:
    """The shape of ``weight``, called ``key``, with the patches of that name: some widen it."""
    return comfy.lora.calculate_shape(patcher.patches.get(key, ()), weight, key)
