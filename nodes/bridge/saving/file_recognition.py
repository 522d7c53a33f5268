"""A check before saving: would ComfyUI take the file for the model that it was?"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from comfy.model_base import BaseModel

from ....quant_core.errors import StorageError
from ..model.seen_by_comfyui import is_of_quantized, is_recognised
from ..tensor.placeholder import Placeholder
from .saved_tensors import ModelTensors


def require_recognition(
    model: BaseModel, tensors: ModelTensors, metadata: Mapping[str, str]
) -> None:
    """Check that ComfyUI would recognise the model by its tensors' names and shapes.

    StorageError where it finds no model or another one: it recognises some architectures only by
    what their original files hold besides.
    """
    name = f"{type(model.model_config).__name__} ({model.model_type.name})"
    if not is_recognised(model, _state(tensors, packed=False), metadata):
        raise StorageError(
            f"ComfyUI would not recognise the saved file as this {name}. "
            "Keep the original, and quantize it when it is loaded."
        )


def is_read_packed(model: BaseModel, tensors: ModelTensors, metadata: Mapping[str, str]) -> bool:
    """Whether ComfyUI's own loader, which sees the codes' shapes, recognises the model too: two
    codes to a byte halve the width that it may go by."""
    return is_recognised(model, _state(tensors, packed=True), metadata)


def _state(tensors: ModelTensors, packed: bool) -> dict[str, torch.Tensor]:
    """The file's tensors as ComfyUI would see them; some it looks into, none of them quantized."""
    state = {name: tensor for name, tensor in tensors.plain.items() if not is_of_quantized(name)}
    for name, weight in tensors.weights.items():
        seen = weight._qdata if packed else weight
        state[f"{name}.weight"] = Placeholder(seen.shape, weight.dtype)
    return state
