"""A check before saving: would ComfyUI take the file for the model that it was?"""

from __future__ import annotations

from collections.abc import Mapping

import comfy.model_detection
import torch
from comfy.model_base import BaseModel

from ....quant_core.errors import StorageError
from ....quant_core.formats import FORMATS
from ....quant_core.storage import MARKER, STOCK_MARKER
from ..tensor.placeholder import Placeholder
from .saved_tensors import ModelTensors

_EXTRAS = frozenset(
    (
        MARKER,
        STOCK_MARKER,
        "input_scale",
        "pre_quant_scale",
        *(entry for fmt in FORMATS.values() for entry in fmt.entries.values()),
    )
)


def require_recognition(
    model: BaseModel, tensors: ModelTensors, metadata: Mapping[str, str]
) -> None:
    """Check that ComfyUI would recognise the file: it knows a model by its tensors' names and
    shapes.

    StorageError where it finds no model or another one: it recognises some architectures only by
    what their original files hold besides.
    """
    name = f"{type(model.model_config).__name__} ({model.model_type.name})"
    found = _recognised(_state(tensors), metadata, model)
    if found is None or found.model_type != model.model_type or _shapes(found) != _shapes(model):
        raise StorageError(
            f"ComfyUI would not recognise the saved file as this {name}. "
            "Keep the original, and quantize it when it is loaded."
        )


def _state(tensors: ModelTensors) -> dict[str, torch.Tensor]:
    """The file's tensors as ComfyUI would see them; some it looks into, none of them quantized."""
    weights = tensors.weights.items()
    state = {name: tensor for name, tensor in tensors.plain.items() if not _of_quantized(name)}
    return state | {f"{name}.weight": Placeholder(w.shape, w.dtype) for name, w in weights}


def _recognised(
    state: Mapping[str, torch.Tensor], metadata: Mapping[str, str], model: BaseModel
) -> BaseModel | None:
    """The model that ComfyUI would build for ``state``, on the meta device if it can be."""
    prefix = comfy.model_detection.unet_prefix_from_state_dict(state)
    if any(name.startswith(prefix) for name in state):
        return None  # it would strip the prefix off those and drop the others
    config = comfy.model_detection.model_config_from_unet(state, "", metadata=metadata)
    if type(config) is not type(model.model_config):
        return None
    config.set_inference_dtype(model.get_dtype(), model.manual_cast_dtype)
    try:
        return config.get_model(dict(state), "", device="meta")
    except RuntimeError:
        # ACE-Step 1.5 reads values while it is made. On a CPU nobody writes to the weights, so that
        # they take no memory either.
        return config.get_model(dict(state), "", device="cpu")


def _shapes(model: BaseModel) -> dict[str, torch.Size]:
    parameters = model.diffusion_model.named_parameters()
    return {name: p.shape for name, p in parameters if not _of_quantized(name)}


def _of_quantized(name: str) -> bool:
    """What a layer has beside weight and bias because it is quantized."""
    return name.rpartition(".")[2] in _EXTRAS
