"""What a node's dropdown values mean on this machine and for this model."""

from __future__ import annotations

import torch
from comfy.model_base import BaseModel
from torch import nn

from ...quant_core import Hardware, UnknownNameError, get_recommended_method
from ..bridge.architecture.detected import encoder_preset_name, preset_name

AUTO = "auto"
NONE = "none"
COMPUTE_DEVICES = (AUTO, "gpu", "cpu")


def choose_method(method: str, hardware: Hardware) -> tuple[str, list[str]]:
    """The method, and for "auto" a note that says what was chosen and why."""
    if method != AUTO:
        return method, []
    chosen = get_recommended_method(hardware)
    reason = "runs" if hardware.fp8_matmul else "does not run"
    return chosen, [f"auto chose {chosen}: {hardware.name} {reason} FP8 matmuls in hardware."]


def choose_preset(preset: str, model: BaseModel) -> str | None:
    """The preset's name, "generic" for an unknown architecture, or None for no preset."""
    return _choose(preset, preset_name(model))


def choose_encoder_preset(preset: str, transformer: nn.Module) -> str | None:
    """As ``choose_preset``, for one of a CLIP's transformers."""
    return _choose(preset, encoder_preset_name(transformer))


def _choose(preset: str, detected: str | None) -> str | None:
    if preset == AUTO:
        return detected or "generic"
    return None if preset == NONE else preset


def resolve_device(choice: str, load_device: torch.device) -> torch.device | None:
    """Where to quantize; None leaves each weight where it is.

    ValueError for "gpu" where ComfyUI runs on the CPU.
    """
    if choice not in COMPUTE_DEVICES:
        raise UnknownNameError("compute device", choice, COMPUTE_DEVICES)
    if choice == "gpu" and load_device.type == "cpu":
        raise ValueError("compute_device is gpu, but ComfyUI runs on the CPU. Choose auto or cpu.")
    return torch.device("cpu") if choice == "cpu" else load_device
