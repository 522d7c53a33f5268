"""A LoRA that ComfyUI holds beside a quantized weight, to add it later.

Stock adds it to the dequantized weight: at every step where a layer is not loaded (partial load),
and where dynamic VRAM stages a layer. Here a patch that can be computed as a branch beside the
product stays one.
"""

from __future__ import annotations

import torch
from comfy.model_patcher import LowVramPatch, ModelPatcher
from torch import nn

from ..copying.residency import STAGED_CHANGE
from .adapter_changes import adapter_change
from .changes import Change

_PARTIAL, _DYNAMIC = "weight_function", "weight_lowvram_function"
# Where a layer keeps such patches, and what stands there when it has none.
NOTHING_PENDING = {_PARTIAL: (), _DYNAMIC: None}


def pending_change(layer: nn.Module, device: torch.device) -> tuple[str, Change] | None:
    """The only patch that waits for the weight of ``layer``: the attribute that holds it, and its
    branches on ``device``. None where no patch waits, or where branches alone cannot express it."""
    is_staged = "_v" in layer.__dict__
    functions = layer.weight_function
    if is_staged:
        patch = None if functions else layer.__dict__.get(_DYNAMIC)
    else:
        patch = functions[0] if len(functions) == 1 else None
    if not isinstance(patch, LowVramPatch) or layer.weight.dim() != 2:
        return None
    change = _staged(layer, patch, device) if is_staged else _change(layer, patch, device)
    return None if change is None else (_DYNAMIC if is_staged else _PARTIAL, change)


def _change(layer: nn.Module, patch: LowVramPatch, device: torch.device) -> Change | None:
    change = adapter_change(patch.patches[patch.key], tuple(layer.weight.shape), device)
    return None if change is None else change.to(layer.weight.dtype)


def _staged(layer: nn.Module, patch: LowVramPatch, device: torch.device) -> Change | None:
    """The change on ``device``, made once and kept on the layer: dynamic VRAM makes room for what
    is there already."""
    known, change = layer.__dict__.get(STAGED_CHANGE, (None, None))
    if known is not patch:
        change = _change(layer, patch, device)
        layer.__dict__[STAGED_CHANGE] = patch, change
    return change


def release_staged(patcher: ModelPatcher, unpatch_all: bool) -> None:
    """Frees a LoRA's factors when a model is unloaded: dynamic VRAM frees what it staged, but does
    not know of ours, nor of those beside a weight that was patched as it was staged."""
    if not unpatch_all:
        return
    for layer in patcher.model.modules():
        layer.__dict__.pop(STAGED_CHANGE, None)
        if layer.__dict__.get("_v_weight") is not None:
            layer._v_weight, layer._v_signature = None, None
