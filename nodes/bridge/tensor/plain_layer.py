"""A layer that multiplied somebody's quantized weight, turned into ComfyUI's own.

Its class belongs to what its weight was: stock's quantizes activations for its layouts, those of
ComfyUI-GGUF and bitsandbytes read their own tensors.

Tested by tests/nodes/test_requantize.py.
"""

from __future__ import annotations

import comfy.ops
import torch
from torch import nn

from ....quant_core.layers import CONVOLUTIONS
from .direct import computes_directly

# Of these ComfyUI's own classes know no quantized weight but that of an embedding.
_OTHERS = (*CONVOLUTIONS, nn.Embedding)
# What such classes keep on a layer about the weight that it had.
_OF_THE_OLD_WEIGHT = (
    *("layout_type", "quant_format", "tensor_class", "input_scale", "pre_quant_scale"),
    *("quant_state", "state", "largest_layer"),
)


def make_plain(layer: nn.Module, shape: tuple[int, ...]) -> None:
    """Turns ``layer``, a Linear of a weight [N, K], a convolution or a table, into a stock one. Its
    bias becomes a plain tensor; its weight may be missing."""
    kind = next((cls.__name__ for cls in _OTHERS if isinstance(layer, cls)), None)
    if kind is None:
        if not computes_directly(type(layer)):
            layer.__class__ = comfy.ops.manual_cast.Linear
        layer.out_features, layer.in_features = shape
    elif not type(layer).__module__.startswith("comfy.") or hasattr(layer, "quant_format"):
        layer.__class__ = getattr(comfy.ops.manual_cast, kind)
    for name in _OF_THE_OLD_WEIGHT:
        layer._parameters.pop(name, None)
        layer._buffers.pop(name, None)
        layer.__dict__.pop(name, None)
    bias = layer._parameters.setdefault("bias", None)
    if bias is not None and type(bias) is not nn.Parameter:
        layer.bias = nn.Parameter(_floats(bias), requires_grad=False)


def _floats(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.as_subclass(torch.Tensor).detach()
