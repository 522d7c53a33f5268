"""Checks that a file which ComfyUI itself loaded is complete, and that all of it was used.

Where a file lacks a weight, ComfyUI only warns and leaves that memory uninitialized. Of tensors it
has no place for it warns too, though a layer's numbers may mean nothing without them.
"""

from __future__ import annotations

from collections.abc import Mapping

import comfy.model_detection
import comfy.utils
import torch
from comfy.model_patcher import ModelPatcher
from torch import nn

from ....quant_core.errors import StorageError
from ....quant_core.storage import TensorFiles
from ....quant_core.storage.stock import STOCK_MARKER, maker_of
from .building import model_prefix, renamed, require_weights

# What a layer that ComfyUI knows as quantized has beside its weight; the last two are older names.
_PARTS = frozenset(
    ("weight_scale", "weight_scale_2", "input_scale", STOCK_MARKER, "scale_weight", "scale_input")
)
# And beside the weight of a format that has parts of its own.
_PARTS_OF = {"asym_w4a8_int8": frozenset(("weight_s_rel", "weight_s_channel", "weight_codebook"))}
_FLAG = "scaled_fp8"


def require_claimed(
    files: TensorFiles, patcher: ModelPatcher, quantized: Mapping[str, str]
) -> list[str]:
    """Names in ``files`` that have no place in the model and belong to none of its layers.

    quantized: formats of the layers that ComfyUI read as quantized, by their names in the file.
    StorageError: a weight of the model is not in the file, or a tensor of the file belongs to one
    of its layers and was not taken.
    """
    prefix = model_prefix(files.specs)
    mine = {
        name.removeprefix(prefix): torch.empty(spec.shape, dtype=spec.dtype, device="meta")
        for name, spec in files.specs.items()
        if name.startswith(prefix) and name.rpartition(".")[2] != _FLAG
    }
    model = patcher.model.diffusion_model
    taken = renamed(patcher.model.model_config, _converted(patcher, mine))
    parameters = require_weights(files.path.name, model, taken)
    known = parameters.keys() | dict(model.named_buffers(remove_duplicate=False)).keys()
    formats = {layer.removeprefix(prefix): fmt for layer, fmt in quantized.items()}
    leaves = {name for name, module in model.named_modules() if _is_leaf(module)}
    left = []
    for new, old in taken.items():
        layer, _, part = new.rpartition(".")
        old_layer = (old or new).rpartition(".")[0]
        fmt = formats.get(layer) or formats.get(old_layer)
        if new in known or (fmt and part in _PARTS | _PARTS_OF.get(fmt, frozenset())):
            continue
        owner = next((name for name in _above(new) if name in leaves), None)
        if owner is not None:
            raise StorageError(
                f"{files.path.name} has {prefix}{old or new}, which belongs to {owner} and which "
                f"nothing here reads{maker_of(files, prefix + owner)}. Its weights would be wrong: "
                "load the unquantized model, and quantize it in the graph."
            )
        left.append(new)
    return left


def _is_leaf(module: nn.Module) -> bool:
    return next(module.children(), None) is None and bool(module._parameters)


def _above(name: str) -> list[str]:
    """Every module that the tensor ``name`` may be a part of, the nearest first."""
    parts = name.split(".")
    return [".".join(parts[:length]) for length in range(len(parts) - 1, 0, -1)]


def _converted(patcher: ModelPatcher, mine: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """By the names that ComfyUI's loader gives tensors that diffusers named."""
    if comfy.model_detection.model_config_from_unet(mine, "") is not None:
        return mine
    made = comfy.model_detection.convert_diffusers_mmdit(dict(mine), "")
    if made is not None:
        return made
    keys = comfy.utils.unet_to_diffusers(patcher.model.model_config.unet_config)
    return {keys[name]: tensor for name, tensor in mine.items() if name in keys}
