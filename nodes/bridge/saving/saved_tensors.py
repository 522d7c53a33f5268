"""A model's tensors as a file has them, each made when its turn comes.

Patches that wait on the patcher (LoRAs added after quantization) become part of the weights: added
in float32 and rounded once. For a quantized weight that is its second rounding.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from comfy.model_patcher import ModelPatcher
from comfy.quant_ops import QuantizedTensor

from ....quant_core.formats import QuantizedWeight
from ....quant_core.storage import (
    STOCK_MARKER,
    Part,
    StoredLayer,
    TensorSpec,
    quantized_part,
    raw_bytes,
    stock_marker,
)
from ..model.float_weight import MODEL, patched_shape, patched_weight
from ..model.stock_saving import requantized
from ..tensor.layout import is_ours, weight_of

_NARROW = (torch.bfloat16, torch.float16)

Tensors = Mapping[str, torch.Tensor]


@dataclass
class SavedTensors:
    """The tensors of a file to be written. layers: of our formats, by name. stock: ComfyUI's marker
    of every layer that it will read as quantized. narrowed: float32 tensors by the narrower dtype
    that holds them. patched: "quantized" and "plain" weights that a LoRA was added to."""

    parts: list[Part] = field(default_factory=list)
    layers: dict[str, StoredLayer] = field(default_factory=dict)
    stock: dict[str, dict[str, Any]] = field(default_factory=dict)
    narrowed: Counter[torch.dtype] = field(default_factory=Counter)
    patched: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class ModelTensors:
    """All tensors of a diffusion model, told apart in one walk over it.

    weights: the quantized ones, ours and ComfyUI's, by layer name. parts: for each of these layers
    its entries in the state dict by name: of ComfyUI's, codes, scales, marker. plain: all other
    tensors, with what ComfyUI keeps in a file beside the diffusion model, such as the flag of a
    v-prediction.
    """

    weights: dict[str, QuantizedTensor]
    parts: dict[str, dict[str, torch.Tensor]]
    plain: dict[str, torch.Tensor]


def model_tensors(patcher: ModelPatcher) -> ModelTensors:
    """The tensors of an unloaded ``patcher``'s diffusion model."""
    root = patcher.model.diffusion_model
    state, weights, parts = root.state_dict(), {}, {}
    for name, module in root.named_modules(remove_duplicate=False):
        weight = getattr(module, "weight", None)
        if isinstance(weight, QuantizedTensor):
            weights[name] = weight.data
            entries = (*weight.data.state_dict("weight"), STOCK_MARKER)
            keys = (f"{name}.{each}" for each in entries)
            parts[name] = {key: state.pop(key) for key in keys if key in state}
    return ModelTensors(weights, parts, state | patcher.model.state_dict_for_saving({}))


def collect_tensors(patcher: ModelPatcher, model: ModelTensors, private: bool) -> SavedTensors:
    """What a file of the unloaded ``patcher`` holds. private: mark our layers as ours alone."""
    saved = SavedTensors()
    for name, weight in model.weights.items():
        if is_ours(weight):
            _add_ours(saved, patcher, name, weight, private)
            continue
        parts = model.parts[name]
        saved.stock[name] = json.loads(raw_bytes(parts[f"{name}.{STOCK_MARKER}"]))
        if f"{MODEL}{name}.weight" in patcher.patches:
            _add_stock(saved, patcher, name, weight)
            made = weight.state_dict(f"{name}.weight")
            parts = {key: tensor for key, tensor in parts.items() if key not in made}
        for key, tensor in parts.items():
            _add_plain(saved, patcher, key, tensor)
    for name, tensor in model.plain.items():
        _add_plain(saved, patcher, name, tensor)
    return saved


def _add_ours(
    saved: SavedTensors, patcher: ModelPatcher, name: str, weight: QuantizedTensor, private: bool
) -> None:
    key = f"{MODEL}{name}.weight"
    shape = tuple(patched_shape(patcher, key, weight))
    layer = StoredLayer(name, weight._params.format, shape)
    if not layer.format.fits(shape):  # a patch has widened it
        _add_plain(saved, patcher, f"{name}.weight", weight.dequantize())
        return

    def make() -> QuantizedWeight:
        stored = weight_of(weight._qdata, weight._params)
        return _requantize(patcher, key, stored) if key in patcher.patches else stored

    saved.parts.append(quantized_part(layer, make, private))
    saved.layers[name] = layer
    saved.patched["quantized"] += key in patcher.patches
    if not private:
        saved.stock[name] = stock_marker(layer.format, weight.dim())


def _requantize(patcher: ModelPatcher, key: str, stored: QuantizedWeight) -> QuantizedWeight:
    patched = patched_weight(patcher, key, stored.dequantize(torch.float32), patcher.load_device)
    return requantized(key, stored.format, patched)


def _add_stock(
    saved: SavedTensors, patcher: ModelPatcher, name: str, weight: QuantizedTensor
) -> None:
    key = f"{MODEL}{name}.weight"

    def make() -> Tensors:
        patched = patched_weight(patcher, key, weight.dequantize(), patcher.load_device)
        new = weight.requantize_from_float(patched, scale="recalculate", stochastic_rounding=0)
        return new.state_dict(f"{name}.weight")

    specs = weight.state_dict(f"{name}.weight").items()
    saved.parts.append(Part(tuple(TensorSpec(n, t.dtype, tuple(t.shape)) for n, t in specs), make))
    saved.patched["quantized"] += 1


def _add_plain(saved: SavedTensors, patcher: ModelPatcher, name: str, tensor: torch.Tensor) -> None:
    key = MODEL + name
    patches = patcher.patches.get(key)
    dtype = narrowest(tensor)
    shape = patched_shape(patcher, key, tensor)

    def make() -> Tensors:
        whole = patched_weight(patcher, key, tensor, patcher.load_device) if patches else tensor
        return {name: whole.to(dtype)}

    saved.parts.append(Part((TensorSpec(name, dtype, tuple(shape)),), make))
    saved.narrowed[dtype] += dtype != tensor.dtype
    saved.patched["plain"] += bool(patches)


def narrowest(tensor: torch.Tensor) -> torch.dtype:
    """The dtype that holds a tensor as it is: for float32 the first of bfloat16 and float16 that
    represents every value, because ComfyUI holds a half-precision file as float32 on a CPU."""
    if tensor.dtype == torch.float32:
        for dtype in _NARROW:
            if torch.equal(tensor.to(dtype).float(), tensor):
                return dtype
    return tensor.dtype
