"""What a component holds beside the weights of its layers: every tensor, with why it is kept.

With it a plan accounts for every byte of the component, so that the report shows a large weight
that no method can quantize (a bank of experts, an attention's joint projection, an embedding).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from ..detect import quantized_as, stored_bytes
from ..layers import CONVOLUTIONS

_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_SHOWN = 3

NOT_SAVED = "no part of the state dict"

Layers = Iterable[tuple[str, str, nn.Module]]


@dataclass(frozen=True)
class Remainder:
    """Tensors of one kind that are kept for one reason. names: theirs, the largest first. bytes: of
    all as stored, each tensor once."""

    kind: str
    reason: str
    names: tuple[str, ...]
    bytes: int

    def to_dict(self) -> dict:
        """Plain values, for JSON; of the names the first."""
        return {
            "kind": self.kind,
            "reason": self.reason,
            "count": len(self.names),
            "bytes": self.bytes,
            "names": list(self.names[:_SHOWN]),
        }


def remainder_of(model: nn.Module, layers: Layers) -> tuple[Remainder, ...]:
    """All parameters and buffers of ``model`` but the weights of ``layers`` (name, kind, module),
    in groups, the largest first."""
    groups: dict[tuple[str, str], list[tuple[int, str]]] = {}
    for name, owner, part, tensor in _others(model, layers):
        key = _kind_and_reason(owner, part, tensor)
        groups.setdefault(key, []).append((stored_bytes(tensor), name))
    made = [
        Remainder(
            kind,
            reason,
            tuple(name for _, name in sorted(found, key=lambda each: -each[0])),
            sum(size for size, _ in found),
        )
        for (kind, reason), found in groups.items()
    ]
    return tuple(sorted(made, key=lambda each: -each.bytes))


def other_owners(model: nn.Module, layers: Layers) -> Mapping[int, str]:
    """Parameters of ``layers`` that other modules hold too, such as an embedding tied to a head:
    the identity of each -> the name of one that holds it."""
    layers = list(layers)
    weights = {id(module._parameters.get("weight")) for _, _, module in layers}
    modules = {module for _, _, module in layers}
    return {
        id(parameter): name
        for name, module in model.named_modules()
        if module not in modules
        for parameter in module._parameters.values()
        if parameter is not None and id(parameter) in weights
    }


def _others(model: nn.Module, layers: Layers) -> Iterator[tuple[str, nn.Module, str, torch.Tensor]]:
    seen = {id(module._parameters.get("weight")) for _, _, module in layers}
    for path, module in model.named_modules():
        for part, tensor in (*module._parameters.items(), *module._buffers.items()):
            if tensor is not None and id(tensor) not in seen:
                seen.add(id(tensor))
                yield f"{path}.{part}".lstrip("."), module, part, tensor


def _kind_and_reason(owner: nn.Module, part: str, tensor: torch.Tensor) -> tuple[str, str]:
    if part in owner._buffers:
        if part in owner._non_persistent_buffers_set:
            return "buffer", NOT_SAVED
        return "buffer", "not a parameter"
    quantized = quantized_as(tensor)
    if quantized:
        return "parameter", f"already quantized: {quantized}"
    if isinstance(owner, nn.MultiheadAttention) or (
        isinstance(owner, NonDynamicallyQuantizableLinear) and part == "weight"
    ):
        return "attention", "nn.MultiheadAttention multiplies by it without calling a layer"
    if part == "bias":
        return "bias", "a bias is added, not multiplied"
    if isinstance(owner, nn.Embedding | nn.EmbeddingBag):
        return "embedding", "its rows are looked up, not multiplied"
    if isinstance(owner, CONVOLUTIONS):
        return (
            "convolution",
            "kept: they are quantized in a VAE, or where convolutions says quantize",
        )
    if isinstance(owner, _TRANSPOSED):
        return "transposed convolution", "no method takes one"
    if tensor.dim() <= 1:
        return "vector", "a norm, a gain or another value for each channel"
    if tensor.dim() == 2:
        return "matrix", "its module reads it as a parameter and calls no layer"
    return "stack of matrices", "no method takes more than one matrix, such as a bank of experts"
