"""A ComfyUI VAE with quantized weights, made from another that stays as it is.

A VAE is not a ModelPatcher. It holds one, the model a second time, and functions that refer to
either.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from functools import lru_cache
from types import CellType, FunctionType

import torch
from comfy.quant_ops import QuantizedTensor
from comfy.sd import VAE

from ....quant_core.planning.decisions import Plan
from ....quant_core.report import Report
from ..copying.model_copy import redirect
from .quantize_patcher import quantize_patcher


class QuantizedVAE:
    """A mixin for a VAE whose weights are quantized; it goes in front of the VAE's own class."""

    def get_sd(self) -> dict[str, torch.Tensor]:
        """Plain weights, for saving: ComfyUI loads no VAE that is quantized."""
        model = self.first_stage_model
        plain = dict(model.named_parameters(remove_duplicate=False)) | dict(model.named_buffers())
        return {
            name: part.dequantize() if isinstance(part := plain[name], QuantizedTensor) else part
            for name in super().get_sd()
            if name in plain
        }


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
