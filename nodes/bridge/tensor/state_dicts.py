"""A quantized weight's entry in a state dict, written and read.

Tested by tests/nodes/test_weight_readers.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from comfy.model_patcher import LowVramPatch
from comfy.quant_ops import QuantizedTensor
from torch import nn

from .deferred import Deferred
from .layout import is_ours, quantized_tensor


def readable_weight(layer: nn.Module) -> Deferred:
    """The weight that ``layer`` computes with, as numbers for whoever reads them: dequantized, its
    LoRA and what is still to be added to it (partial load, dynamic VRAM) included."""
    weight, pending = layer.weight, waiting_patches(layer)
    parts = weight.state_dict().values()
    deferred = Deferred(
        tuple(weight.shape),
        weight.dtype,
        weight.device,
        partial(_numbers, weight, pending),
        sum(part.nbytes for part in parts),
    )
    deferred.quantized = None if pending else weight
    return deferred


def waiting_patches(layer: nn.Module) -> tuple[LowVramPatch, ...]:
    """The patches that a layer which is not loaded adds to its weight when it computes."""
    functions = [*getattr(layer, "weight_function", ())]
    functions.append(getattr(layer, "weight_lowvram_function", None))
    return tuple(each for each in functions if isinstance(each, LowVramPatch))


def weight_from_state(weight: QuantizedTensor, value: torch.Tensor) -> QuantizedTensor:
    """``value``, an entry of a state dict, in the format and on the device of ``weight``: bit by
    bit where it is a quantized layer's of the same format, otherwise rounded once."""
    source = value.quantized if isinstance(value, Deferred) else value
    if is_ours(source) and source._params.format == weight._params.format:
        return source.to(device=weight.device, dtype=weight.dtype)
    rounded = weight._params.format.quantize(value.to(weight.device).float())
    return quantized_tensor(rounded, weight.dtype, weight._params.patches)


def _numbers(weight: QuantizedTensor, patches: Sequence[LowVramPatch]) -> torch.Tensor:
    values = weight.dequantize()
    for patch in patches:
        values = patch(values.float())
    return values
