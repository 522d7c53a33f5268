"""A ComfyUI VAE with quantized weights, made from another that stays as it is.

A VAE is not a ModelPatcher. It holds one, the model a second time, and functions that refer to
either.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from functools import lru_cache, partial
from inspect import signature
from types import CellType, FunctionType

import torch
from comfy.quant_ops import QuantizedTensor
from comfy.sd import VAE
from torch import nn

from ....quant_core.formats import QuantizedWeight
from ....quant_core.planning.decisions import Plan
from ....quant_core.report import Report
from ....quant_core.storage import StoredLayer, quantized_part
from ..copying.model_copy import redirect
from ..tensor.layout import is_ours, weight_of
from .quantize_patcher import quantize_patcher
from .stock_saving import is_read_by_stock

_LOADED_QUANTIZED = {"MiniMaxH3VideoVAE": "decoder.transformer_blocks."}


class QuantizedVAE:
    """A mixin for a VAE whose weights are quantized; it goes in front of the VAE's own class."""

    def get_sd(self) -> dict[str, torch.Tensor]:
        """The weights, for saving: plain ones, but for layers that this ComfyUI loads quantized."""
        model = self.first_stage_model
        plain = dict(model.named_parameters(remove_duplicate=False)) | dict(model.named_buffers())
        saved = {
            name: part.dequantize() if isinstance(part := plain[name], QuantizedTensor) else part
            for name in super().get_sd()
            if name in plain
        }
        for name, weight in _read_quantized(model):
            del saved[f"{name}.weight"]
            stored = weight_of(weight._qdata, weight._params)
            layer = StoredLayer(name, stored.format, stored.shape)
            saved |= quantized_part(layer, partial(_same, stored), private=False).make()
        return saved


def _same(weight: QuantizedWeight) -> QuantizedWeight:
    return weight


def _read_quantized(model: nn.Module) -> Iterator[tuple[str, QuantizedTensor]]:
    """Name and weight of each layer that ComfyUI's loader makes with its mixed-precision
    operations: of one VAE, from 0.31 on, whose class is then told which operations to take."""
    blocks = _LOADED_QUANTIZED.get(type(model).__name__)
    if blocks is None or "operations" not in signature(type(model).__init__).parameters:
        return
    for name, layer in model.named_modules():
        weight = getattr(layer, "weight", None)
        ours = name.startswith(blocks) and is_ours(weight)
        if ours and is_read_by_stock(weight._params.format, weight.dim()):
            yield name, weight


@lru_cache
def quantized_class(cls: type[VAE]) -> type[VAE]:
    """The subclass of ``cls`` with QuantizedVAE mixed in; always the same one."""
    return type(f"Quantized{cls.__name__}", (QuantizedVAE, cls), {})


def quantize_vae(vae: VAE, plan: Plan, *, device: torch.device | None) -> tuple[VAE, Report]:
    """Carry out ``plan`` on a copy of ``vae``; see ``quantize_patcher``, which does the work.

    Whatever in the copy referred to ``vae`` or to its modules refers to the copy: the original is
    freed as soon as nothing else holds it.
    """
    patcher, reports = quantize_patcher(
        vae.patcher, {"": plan}, compute_dtype=vae.vae_dtype, device=device
    )
    quantized = copy.copy(vae)
    copies = {
        id(module): patcher.model.get_submodule(name)
        for name, module in vae.first_stage_model.named_modules()
    }
    copies |= {id(vae): quantized, id(vae.patcher): patcher}
    for name, value in vars(vae).items():
        setattr(quantized, name, _redirect(value, copies))
    if not isinstance(vae, QuantizedVAE):
        quantized.__class__ = quantized_class(type(vae))
    quantized.size = None  # asked for, it counts again
    return quantized, reports[""]


def _redirect(value: object, copies: Mapping[int, object]) -> object:
    """As ``redirect``; some VAEs' memory estimates are functions that close over the VAE."""
    if not isinstance(value, FunctionType) or not value.__closure__:
        return redirect(value, copies)
    closure = tuple(CellType(redirect(cell.cell_contents, copies)) for cell in value.__closure__)
    return FunctionType(
        value.__code__, value.__globals__, value.__name__, value.__defaults__, closure
    )
