"""A layer's weight as its MODEL computes with it, whatever is loaded at the moment."""

from __future__ import annotations

import comfy.lora
import comfy.model_management
import comfy.utils
import torch
from comfy.model_patcher import ModelPatcher
from comfy.quant_ops import QuantizedTensor

from ....quant_core.detect import FLOAT8_DTYPES, quantized_as

PREFIX = "diffusion_model."


def unload(patcher: ModelPatcher) -> None:
    """Put the pristine weights back: while a clone is loaded, its LoRAs sit in the shared ones."""
    comfy.model_management.unload_model_and_clones(patcher)
    patcher.detach()


def is_readable(weight: torch.Tensor) -> bool:
    """Whether ``effective_weight`` can turn it into floats: not those of foreign packs."""
    readable = isinstance(weight, QuantizedTensor) or weight.dtype in FLOAT8_DTYPES
    return readable or quantized_as(weight) is None


def effective_weight(patcher: ModelPatcher, layer: str, device: torch.device) -> torch.Tensor:
    """The weight of ``layer`` of the diffusion model, with its MODEL's LoRAs, dequantized: float32
    on ``device``. ``patcher`` must be unloaded (``unload``)."""
    key = f"{PREFIX}{layer}.weight"
    weight = comfy.utils.get_attr(patcher.model, key).detach()
    if isinstance(weight, QuantizedTensor):
        weight = weight.dequantize()
    weight = weight.to(device=device, dtype=torch.float32, copy=True)
    if key in patcher.patches:
        weight = comfy.lora.calculate_weight(patcher.patches[key], weight, key)
    return weight
