"""Layers as other node packs put them into a MODEL: ComfyUI-GGUF's, and bitsandbytes'.

They behave as those do towards ComfyUI: a tensor class of raw bytes that presents itself as another
shape and is detached as itself, and a layer that is not an nn.Linear.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from .foreign_files import is_linear


class GGMLTensor(torch.Tensor):
    """Raw bytes with a type and the shape of the weight that they are."""

    def detach(self, *args, **kwargs):
        return self

    @property
    def shape(self):
        return self.tensor_shape


def ggml_tensor(values: torch.Tensor, kind: str) -> GGMLTensor:
    """``values`` in the blocks of ``kind``, or in F32 or F16."""
    import gguf

    number = gguf.GGMLQuantizationType[kind]
    data = torch.from_numpy(gguf.quantize(values.float().numpy(), number))
    tensor = data.as_subclass(GGMLTensor)
    tensor.tensor_type, tensor.tensor_shape = number, torch.Size(values.size())
    return tensor


def dequantized(tensor: GGMLTensor) -> torch.Tensor:
    """By the package ``gguf``, float32."""
    import gguf

    data = torch.Tensor.as_subclass(tensor, torch.Tensor).numpy()
    return torch.from_numpy(gguf.dequantize(data, tensor.tensor_type)).reshape(tensor.shape)


def ggml_linear() -> type[nn.Module]:
    """The class of such layers, in front of ComfyUI's own."""
    import comfy.ops

    class Linear(comfy.ops.manual_cast.Linear):
        def forward_comfy_cast_weights(self, input):
            bias = None if self.bias is None else dequantized(self.bias).to(input)
            return F.linear(input, dequantized(self.weight).to(input), bias)

    return Linear


class Loader4Bit(nn.Module):
    """A layer that multiplies by a Params4bit and knows no in_features."""

    def forward(self, x):
        import bitsandbytes as bnb

        weight = bnb.functional.dequantize_4bit(self.weight.data, self.weight.quant_state)
        return F.linear(x, weight.to(x), None if self.bias is None else self.bias.to(x))


def put_ggml(model: nn.Module, kind: str = "Q8_0", within: str = "") -> None:
    """Gives the matrices of ``model``'s blocks the layers of ComfyUI-GGUF; within: those whose
    names have it."""
    cls = ggml_linear()
    for layer in _linears(model, within):
        layer.__class__ = cls
        for name, given in (("weight", kind), ("bias", "F32")):
            values = layer._parameters[name]
            if values is not None:
                tensor = ggml_tensor(values.detach().dequantize(), given)
                setattr(layer, name, nn.Parameter(tensor, requires_grad=False))


def put_bitsandbytes(model: nn.Module, kind: str = "nf4", nested: bool = True) -> None:
    """Gives the matrices of ``model``'s blocks the layers of the pack for bitsandbytes."""
    import bitsandbytes as bnb

    for layer in _linears(model):
        packed, state = bnb.functional.quantize_4bit(
            layer.weight.detach().clone(), quant_type=kind, compress_statistics=nested
        )
        for name in ("in_features", "out_features"):
            del layer.__dict__[name]
        layer.__class__ = Loader4Bit
        layer.weight = bnb.nn.Params4bit(
            packed, requires_grad=False, quant_state=state, quant_type=kind, bnb_quantized=True
        )
        layer.quant_state = state


def _linears(model: nn.Module, within: str = "") -> list[nn.Module]:
    return [
        layer
        for name, layer in model.named_modules()
        if within in name
        and hasattr(layer, "in_features")
        and is_linear(f"{name}.weight", layer.weight)
    ]
