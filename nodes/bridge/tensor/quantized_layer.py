"""What ModelPatcher asks of a layer whose weight is quantized.

A layer keeps its own class, forward and attributes; only its class gains this mixin in front.
"""

from __future__ import annotations

import dataclasses
from functools import lru_cache, partial

import comfy.ops
import torch
from comfy.quant_ops import QuantizedTensor
from torch import nn

from ....quant_core.errors import NonFiniteWeightError
from ....quant_core.formats import QuantizedWeight
from ..lora.adapters import PatchSource
from ..lora.changes import with_lora_not_finite
from ..lora.pending_patches import NOTHING_PENDING, pending_change
from .direct import computes_directly, direct_linear
from .layout import is_ours, quantized_tensor
from .operators import table_rows
from .state_dicts import readable_weight, waiting_patches, weight_from_state


class QuantizedLayer:
    """A mixin for a layer whose weight is quantized; it goes in front of the layer's own class."""

    def convert_weight(self, weight: torch.Tensor, inplace: bool = False, **_) -> torch.Tensor:
        """``weight`` as ModelPatcher adds patches to it: dequantized."""
        return weight.dequantize() if isinstance(weight, QuantizedTensor) else weight

    def set_weight(
        self,
        weight: torch.Tensor,
        inplace_update: bool = False,
        seed: int | None = None,
        return_weight: bool = False,
        **_,
    ) -> torch.Tensor | None:
        """Take ``weight`` [N, K], the dequantized one with patches added, as a rule float32.
        inplace_update: it belongs to a hook, which will take it off again.
        NonFiniteWeightError."""
        if not self.weight._params.format.fits(weight.shape):
            new = weight.to(self.weight.dtype)  # a patch has widened it
            if not return_weight:
                self.weight = nn.Parameter(new, requires_grad=False)
            return new if return_weight else None
        try:
            new = self.weight.requantize_from_float(weight).to(self.weight.dtype)
        except NonFiniteWeightError as error:
            source = self.weight._params.patches
            raise with_lora_not_finite(source.key if source else "weight") from error
        if return_weight:
            return new
        if inplace_update:
            undo = partial(setattr, self, "weight", self.weight)
            new._params = dataclasses.replace(new._params, undo=undo)
        self.weight = nn.Parameter(new, requires_grad=False)
        return None

    def forward_comfy_cast_weights(self, input: torch.Tensor, *args, **kwargs) -> torch.Tensor:
        """The forward of a layer that is not loaded, or that dynamic VRAM stages. Stock would
        dequantize and patch its weight; a LoRA's factors beside the quantized product compute what
        a loaded layer computes."""
        pending = pending_change(self, input.device)
        if pending is None:
            return super().forward_comfy_cast_weights(input, *args, **kwargs)
        place, change = pending
        waiting = getattr(self, place)
        setattr(self, place, NOTHING_PENDING[place])
        try:
            y = super().forward_comfy_cast_weights(input, *args, **kwargs)
        finally:
            setattr(self, place, waiting)
        return change.add_branches(input, y)

    def state_dict(self, *args, destination=None, prefix="", keep_vars=False):
        """``nn.Module``'s own state dict, with what ``_save_to_state_dict`` adds."""
        # Layers of quantized checkpoints bring a state_dict of their own, for stock layouts only.
        return nn.Module.state_dict(
            self, *args, destination=destination, prefix=prefix, keep_vars=keep_vars
        )

    def _save_to_state_dict(self, destination, prefix, keep_vars):
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if isinstance(self.weight, QuantizedTensor):
            destination[f"{prefix}weight"] = readable_weight(self)

    def _load_from_state_dict(self, state_dict, prefix, *args):
        key = f"{prefix}weight"
        if not isinstance(self.weight, QuantizedTensor) or key not in state_dict:
            return super()._load_from_state_dict(state_dict, prefix, *args)
        value, rest = state_dict[key], {k: v for k, v in state_dict.items() if k != key}
        *_, missing, _, errors = args
        nn.Module._load_from_state_dict(self, rest, prefix, *args)
        missing.remove(key)
        if value.shape != self.weight.shape:
            errors.append(
                f"size mismatch for {key}: {list(value.shape)} in the state dict, "
                f"{list(self.weight.shape)} in the quantized layer."
            )
            return None
        self.weight = nn.Parameter(weight_from_state(self.weight.detach(), value), False)

    def _apply(self, fn, recurse=True):
        return comfy.ops._quantized_apply(self, fn, recurse)


class QuantizedLinear(QuantizedLayer):
    """The mixin for layer classes whose forward is stock's Linear."""

    def forward(self, input: torch.Tensor, *args, **kwargs) -> torch.Tensor:
        """The layer's output, without the detour of tensor subclasses where that is possible."""
        y = direct_linear(self, input)
        return super().forward(input, *args, **kwargs) if y is None else y


class QuantizedTable(QuantizedLayer):
    """The mixin for embeddings, which decodes no rows but those that are looked up."""

    def forward_comfy_cast_weights(
        self, input: torch.Tensor, out_dtype: torch.dtype | None = None
    ) -> torch.Tensor:
        """The rows ``input`` [...] of the table as [..., K] in ``out_dtype`` (None: the table's).
        They are read where the table is, so that one that is not loaded stays there."""
        weight, waiting = self.weight, waiting_patches(self)
        pending = pending_change(self, weight.device) if len(waiting) == 1 else None
        if not is_ours(weight) or len(waiting) > 1 or (waiting and pending is None):
            return super().forward_comfy_cast_weights(input, out_dtype)
        rows = input.flatten().to(weight.device)
        found = table_rows(weight, rows)
        if pending is not None:
            found = pending[1].apply_to_rows(found, rows)
        found = found.view(*input.shape, found.shape[-1])
        return found.to(device=input.device, dtype=out_dtype or weight.dtype)


@lru_cache
def quantized_class(cls: type[nn.Module]) -> type[nn.Module]:
    """The subclass of ``cls`` with the mixin in front; always the same one, because torch.compile
    would compile each class anew."""
    mixin = QuantizedLinear if computes_directly(cls) else QuantizedLayer
    if issubclass(cls, nn.Embedding):
        mixin = QuantizedTable
    return type(f"Quantized{cls.__name__}", (mixin, cls), {})


def quantize_layer(
    layer: nn.Module,
    weight: QuantizedWeight,
    dtype: torch.dtype,
    patches: PatchSource | None = None,
) -> None:
    """Give ``layer`` a quantized weight that computes in ``dtype``."""
    if not isinstance(layer, QuantizedLayer):
        layer.__class__ = quantized_class(type(layer))
    layer.weight = nn.Parameter(quantized_tensor(weight, dtype, patches), requires_grad=False)
