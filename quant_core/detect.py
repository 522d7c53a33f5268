"""Tells whether a tensor is quantized already, and how many bytes it really takes.

Every parameter has to be looked at, because a mixed model may begin with a plain one. Native FP8
parameters are plain ``torch.Tensor``; all other kinds are known by their class.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

FLOAT8_DTYPES = frozenset(
    getattr(torch, name)
    for name in (
        "float8_e4m3fn",
        "float8_e4m3fnuz",
        "float8_e5m2",
        "float8_e5m2fnuz",
        "float8_e8m0fnu",
    )
    if hasattr(torch, name)
)


def quantized_as(tensor: torch.Tensor) -> str | None:
    """What ``tensor`` is stored as, in a word, or None for ordinary numbers, real or complex.

    Knows native float8 dtypes, integer codes, wrapper subclasses (torchao, ComfyUI's
    QuantizedTensor) and foreign tensor classes (GGUF, bitsandbytes).
    """
    layout = getattr(tensor, "_layout_cls", None)
    if layout is not None:
        return f"ComfyUI {layout}"
    if is_traceable_wrapper_subclass(tensor) or type(tensor) not in (torch.Tensor, nn.Parameter):
        return type(tensor).__name__
    ordinary = tensor.dtype.is_floating_point or tensor.dtype.is_complex
    if tensor.dtype in FLOAT8_DTYPES or not ordinary:
        return str(tensor.dtype).removeprefix("torch.")
    return None


def layer_quantized_as(layer: nn.Module) -> str | None:
    """``quantized_as`` of the first quantized parameter of ``layer`` itself."""
    own = layer.parameters(recurse=False)
    return next((kind for kind in map(quantized_as, own) if kind is not None), None)


def stored_bytes(tensor: torch.Tensor) -> int:
    """The bytes that ``tensor`` occupies. A wrapper's own numel() * element_size() gives those of
    the unquantized tensor."""
    if not is_traceable_wrapper_subclass(tensor):
        return tensor.numel() * tensor.element_size()
    names, _ = tensor.__tensor_flatten__()
    return sum(stored_bytes(getattr(tensor, name)) for name in names)


def module_bytes(module: nn.Module) -> int:
    """Bytes of all parameters and buffers, shared ones once."""
    tensors = {id(t): t for t in (*module.parameters(), *module.buffers())}
    return sum(map(stored_bytes, tensors.values()))
