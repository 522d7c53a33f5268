"""Whether ComfyUI would recognise a model by its tensors: it goes by their names and shapes.

Tested by tests/nodes/bridge/saving/test_file_recognition.py.
"""

from __future__ import annotations

from collections.abc import Mapping

import comfy.model_detection
import torch
from comfy.model_base import BaseModel

from ....quant_core.formats import FORMATS
from ....quant_core.storage import MARKER, STOCK_MARKER

_EXTRAS = frozenset(
    (
        MARKER,
        STOCK_MARKER,
        "input_scale",
        "pre_quant_scale",
        *(entry for fmt in FORMATS.values() for entry in fmt.entries.values()),
    )
)


def is_recognised(
    model: BaseModel, state: Mapping[str, torch.Tensor], metadata: Mapping[str, str]
) -> bool:
    """Whether ComfyUI would build ``model`` for a file of ``state`` and ``metadata``. state: by the
    names in the diffusion model, each of the shape that the file has."""
    found = _recognised(state, metadata, model)
    if found is None or found.model_type != model.model_type:
        return False
    return _shapes(found) == _shapes(model)


def is_of_quantized(name: str) -> bool:
    """What a layer has beside weight and bias because it is quantized."""
    return name.rpartition(".")[2] in _EXTRAS


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
    return {name: p.shape for name, p in parameters if not is_of_quantized(name)}
