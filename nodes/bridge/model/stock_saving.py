"""What ComfyUI's own save nodes write of a quantized diffusion model.

They collect a state dict and let the model name its tensors (``state_dict_for_saving``): there the
numbers are known to go into a file. A layer whose format ComfyUI reads is written in that format;
every other one as a plain weight, which its entry of the state dict is already.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping
from functools import lru_cache, partial

import torch
from comfy.model_base import BaseModel
from comfy.model_patcher import LazyCastingParam, ModelPatcher
from comfy.quant_ops import QUANT_ALGOS
from torch import nn

from ....quant_core.errors import NonFiniteWeightError
from ....quant_core.formats import Format, QuantizedWeight
from ....quant_core.storage import StoredLayer, quantized_part, stock_marker
from ..lora.changes import Change, with_lora_not_finite
from ..tensor.deferred import Deferred
from ..tensor.layout import is_ours, weight_of
from ..tensor.placeholder import Placeholder
from .float_weight import MODEL, patched_shape, patched_weight
from .seen_by_comfyui import is_of_quantized, is_recognised

log = logging.getLogger(__name__)

Tensors = dict[str, torch.Tensor]


class StockSaved:
    """A mixin for a ComfyUI model with quantized layers; it goes in front of the model's class."""

    def state_dict_for_saving(self, unet_state_dict: Tensors, *args, **kwargs) -> Tensors:
        """ComfyUI's state dict of a whole file, each quantized layer as ComfyUI reads it."""
        state = as_stock_reads(self, unet_state_dict)
        return super().state_dict_for_saving(state, *args, **kwargs)


@lru_cache
def stock_saved_class(cls: type[BaseModel]) -> type[BaseModel]:
    """The subclass of ``cls`` with StockSaved mixed in; always the same one, and of the same name,
    by which nodes tell models apart."""
    return cls if issubclass(cls, StockSaved) else type(cls.__name__, (StockSaved, cls), {})


def as_stock_reads(model: BaseModel, state: Mapping[str, torch.Tensor]) -> Tensors:
    """``state``, the entries of ``model``'s diffusion model that stock's saver collected, with the
    quantized layers of ours in ComfyUI's own formats where it has them, LoRAs rounded in. A log
    line counts the others."""
    result, dense, root = dict(state), Counter(), model.diffusion_model
    hides = _packed_that_hide(model) if state else set()
    patcher = next((v.model for v in state.values() if isinstance(v, LazyCastingParam)), None)
    for name, layer in root.named_modules(remove_duplicate=False):
        key = f"{name}.weight"
        if key not in state or not is_ours(getattr(layer, "weight", None)):
            continue
        numbers = _numbers(layer, state[key], patcher, f"{MODEL}{key}")
        fmt = layer.weight._params.format
        readable = is_read_by_stock(fmt, layer.weight.dim()) and fmt.fits(numbers.shape)
        if readable and name not in hides:
            result.pop(key)
            result |= _in_format(name, layer, numbers)
        else:
            result[key] = numbers
            dense[str(fmt)] += 1
    if dense:
        counts = ", ".join(f"{count} of {fmt}" for fmt, count in dense.items())
        log.warning(
            "Saved dequantized, because ComfyUI reads no such layers here: %s. The file is right, "
            "and as large as the plain model's; Save Quantized Model keeps them as they are.",
            counts,
        )
    return result


def _packed_that_hide(model: BaseModel) -> set[str]:
    """The layers with two codes to a byte, where ComfyUI would not recognise the model by their
    halved widths; empty where it does."""
    root = model.diffusion_model
    weights = {
        name: layer.weight
        for name, layer in root.named_modules(remove_duplicate=False)
        if is_ours(getattr(layer, "weight", None))
    }
    packed = {
        name
        for name, weight in weights.items()
        if weight._qdata.shape != weight.shape
        and is_read_by_stock(weight._params.format, weight.dim())
    }
    if not packed:
        return set()
    plain = {name: part for name, part in root.state_dict().items() if not is_of_quantized(name)}

    whole = {f"{name}.weight": Placeholder(w.shape, w.dtype) for name, w in weights.items()}
    stored = {
        f"{name}.weight": Placeholder(weights[name]._qdata.shape, weights[name].dtype)
        for name in packed
    }
    if not is_recognised(model, plain | whole, {}):
        return set()  # nor is it by anything that is done here
    return set() if is_recognised(model, plain | whole | stored, {}) else packed


def is_read_by_stock(fmt: Format, dimensions: int) -> bool:
    """Whether this ComfyUI, without this pack, reads weights of ``fmt`` and of so many
    dimensions."""
    marker = stock_marker(fmt, dimensions)
    return marker is not None and marker["format"] in QUANT_ALGOS


def _numbers(
    layer: nn.Module, readable: torch.Tensor, patcher: ModelPatcher | None, key: str
) -> Deferred:
    """The weight as the saved patcher means it. A loaded layer has its patches; for another one
    they are on the patcher, which stock's saver tells us with what it saves of other layers."""
    loaded = getattr(layer, "comfy_patched_weights", False)
    if loaded or patcher is None or key not in patcher.patches:
        return readable
    weight = layer.weight

    def patched() -> torch.Tensor:
        return patched_weight(patcher, key, weight.dequantize(), patcher.load_device).cpu()

    shape = tuple(patched_shape(patcher, key, weight))
    return Deferred(shape, weight.dtype, torch.device("cpu"), patched, readable.nbytes)


def _in_format(name: str, layer: nn.Module, numbers: Deferred) -> Tensors:
    weight = layer.weight
    fmt = weight._params.format
    unchanged = numbers.quantized is not None and Change.of(weight._params) is None

    def make() -> QuantizedWeight:
        if unchanged:
            return weight_of(weight._qdata, weight._params)
        return requantized(f"{MODEL}{name}.weight", fmt, numbers.dense().float())

    part = quantized_part(StoredLayer(name, fmt, tuple(numbers.shape)), make, private=False)
    made = lru_cache(maxsize=1)(part.make)
    return {
        spec.name: Deferred(
            spec.shape, spec.dtype, torch.device("cpu"), partial(_entry, made, spec.name), 0
        )
        for spec in part.specs
    }


def _entry(made: Callable[[], Tensors], name: str) -> torch.Tensor:
    return made()[name].cpu()


def requantized(key: str, fmt: Format, weight: torch.Tensor) -> QuantizedWeight:
    """``weight``, called ``key``: a float tensor with its LoRA, rounded to ``fmt``.
    NonFiniteWeightError."""
    try:
        return fmt.quantize(weight)
    except NonFiniteWeightError as error:
        raise with_lora_not_finite(key) from error
