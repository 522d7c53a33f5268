"""Weights that are quantized already, read as numbers so that they can be rounded anew.

Each kind is known by what its tensors are: native FP8, wrapper subclasses that dequantize
themselves (ComfyUI's QuantizedTensor, torchao's classes, ours), the blocks of ComfyUI-GGUF, and the
two kinds of bitsandbytes. Neither package is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from .codes.ggml_blocks import BLOCK_TYPES
from .detect import FLOAT8_DTYPES, layer_quantized_as, stored_bytes
from .formats import Code4, Format, QuantizedWeight
from .formats.code4 import CODES
from .formats.gguf import GGUF

Read = Callable[[torch.device | None], torch.Tensor]

# Formats that hold the same codes, whatever they do with activations and scales.
_FAMILIES = {
    "static_float8": "float8",
    "block_float8": "float8",
    "cast_float8": "float8",
    "llm_int8": "int8",
}
# By what the name of a ComfyUI layout or of a torchao class begins with.
_NAMED = {
    "TensorCoreNVFP4": "nvfp4",
    "TensorCoreMXFP8": "mxfp8",
    "TensorCoreFP8": "float8",
    "TensorWiseINT8": "int8",
    "Float8": "float8",
    "Int8": "int8",
    "NF4": "code4",
}
_PLAIN_GGUF = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_NESTED_BLOCK = 256


@dataclass(frozen=True)
class Source:
    """A weight that is quantized already.

    name: what it is stored as, for reports. family: the ``kind`` of the formats that would store
    the same codes, or a name of its own. bits: of a code. shape: of the weight, [N, K]. read: gives
    the numbers, float32, on a device (None: where the weight is).
    """

    name: str
    family: str
    bits: int
    shape: tuple[int, ...]
    read: Read

    def reason_to_stay(self, fmt: Format) -> str | None:
        """Why rounding to ``fmt`` again would gain nothing, in words; None where it may."""
        bits = code_bits(fmt, self.shape)
        if bits > self.bits:
            return f"already quantized: {self.name}, of fewer bits than {fmt}"
        if bits == self.bits and family_of(fmt) == self.family:
            return f"already quantized: {self.name}, which holds the same codes as {fmt}"
        return None


def family_of(fmt: Format) -> str:
    """The name that formats of the same codes share."""
    return _FAMILIES.get(fmt.kind, fmt.kind)


def code_bits(fmt: Format, shape: tuple[int, ...]) -> int:
    """Whole bits of a code of ``fmt``, without its scales, for a weight of ``shape``."""
    dtype, stored = fmt.parts(shape)["qdata"]
    return torch.Size(stored).numel() * dtype.itemsize * 8 // torch.Size(shape).numel()


def source_of(layer: nn.Module) -> Source | None:
    """How the weight of ``layer`` is stored and read; None where it is in floats, or stored in a
    way that is not known here."""
    weight = layer._parameters.get("weight")
    if weight is None or layer_quantized_as(layer) is None:
        return None
    source = next((source for read in _READERS if (source := read(layer, weight))), None)
    smoothing = getattr(layer, "pre_quant_scale", None)
    if source is None or smoothing is None:
        return source
    # The layer multiplies its input by it: so does a weight whose columns are multiplied.
    return replace(
        source, read=lambda device: (w := source.read(device)) * smoothing.detach().to(w)
    )


def float_weight(layer: nn.Module, device: torch.device | None = None) -> torch.Tensor:
    """The weight of ``layer`` in floats: as it is, or dequantized on ``device`` (None: where it
    is), float32."""
    source = source_of(layer)
    return layer.weight.detach() if source is None else source.read(device)


def _native_float8(layer: nn.Module, weight: torch.Tensor) -> Source | None:
    plain = type(weight) in (torch.Tensor, nn.Parameter) and weight.dtype in FLOAT8_DTYPES
    # Its own class multiplies by such a scale, in a way that only that class knows.
    own = {name for name in _tensors_of(layer) if "scale" in name} - {"pre_quant_scale"}
    if not plain or own:
        return None
    name = str(weight.dtype).removeprefix("torch.")
    data = weight.detach()
    return Source(name, "float8", 8, tuple(weight.shape), lambda device: _to(data, device).float())


def _tensors_of(layer: nn.Module) -> Iterator[str]:
    yield from (name for name, part in layer._parameters.items() if part is not None)
    yield from (name for name, part in layer._buffers.items() if part is not None)
    yield from (name for name, part in vars(layer).items() if isinstance(part, torch.Tensor))


def _wrapper(layer: nn.Module, weight: torch.Tensor) -> Source | None:
    if not is_traceable_wrapper_subclass(weight):
        return None
    name = getattr(weight, "_layout_cls", None) or type(weight).__name__
    params = getattr(weight, "_params", weight)
    fmt = getattr(params, "format", None)
    family = next((family for start, family in _NAMED.items() if name.startswith(start)), name)
    if isinstance(fmt, Format):
        name, family = str(fmt), family_of(fmt)
    elif family == "int8" and getattr(params, "convrot", False):
        family = "int8_convrot"
    leaves = [getattr(weight, leaf) for leaf in weight.__tensor_flatten__()[0]]
    bits = max(map(stored_bytes, leaves)) * 8 // weight.numel()
    read = getattr(weight, "get_original_weight", weight.dequantize)  # torchao's NF4 has the first

    def numbers(device: torch.device | None) -> torch.Tensor:
        if device is None or device == weight.device:
            return read().float()
        return getattr(weight.to(device), read.__name__)().float()

    return Source(name, family, bits, tuple(weight.shape), numbers)


def _ggml(layer: nn.Module, weight: torch.Tensor) -> Source | None:
    kind = getattr(getattr(weight, "tensor_type", None), "name", None)
    shape = tuple(getattr(weight, "tensor_shape", ()))
    if kind not in (*BLOCK_TYPES, *_PLAIN_GGUF):
        return None
    data = weight.as_subclass(torch.Tensor).detach()

    def numbers(device: torch.device | None) -> torch.Tensor:
        stored = _to(data, device)
        if kind in _PLAIN_GGUF:
            return stored.contiguous().view(_PLAIN_GGUF[kind]).reshape(shape).float()
        return GGUF(kind).stored(stored.contiguous(), shape, torch.float32).dequantize()

    bits = data.nbytes * 8 // torch.Size(shape).numel()
    return Source(f"GGUF {kind}", GGUF.kind, bits, shape, numbers)


def _bitsandbytes_4bit(layer: nn.Module, weight: torch.Tensor) -> Source | None:
    state = getattr(weight, "quant_state", None) or getattr(layer, "quant_state", None)
    kind = getattr(state, "quant_type", None)
    nested = bool(getattr(state, "nested", False))
    if kind not in CODES or (nested and state.state2.blocksize != _NESTED_BLOCK):
        return None
    shape = tuple(state.shape)
    parts = {"qdata": weight.data.as_subclass(torch.Tensor).view(torch.uint8).reshape(-1)}
    parts["scale"] = state.absmax
    if nested:
        parts |= {"zero_point": state.offset, "scale_2": state.state2.absmax}

    def numbers(device: torch.device | None) -> torch.Tensor:
        moved = {name: _to(part, device or weight.device) for name, part in parts.items()}
        fmt = Code4(kind, state.blocksize, nested)
        return QuantizedWeight.of_parts(fmt, moved, shape, torch.float32).dequantize()

    return Source(f"bitsandbytes {kind.upper()}", Code4.kind, 4, shape, numbers)


def _bitsandbytes_8bit(layer: nn.Module, weight: torch.Tensor) -> Source | None:
    maxima = getattr(weight, "SCB", None)
    if maxima is None:
        maxima = getattr(getattr(layer, "state", None), "SCB", None)
    if maxima is None or weight.dtype != torch.int8:
        return None
    codes = weight.data.as_subclass(torch.Tensor)

    def numbers(device: torch.device | None) -> torch.Tensor:
        scale = _to(maxima, device or codes.device).view(-1, 1) / 127
        return _to(codes, device).float() * scale

    return Source("bitsandbytes INT8", "int8", 8, tuple(codes.shape), numbers)


_READERS: tuple[Callable[[nn.Module, torch.Tensor], Source | None], ...] = (
    _native_float8,
    _wrapper,
    _ggml,
    _bitsandbytes_4bit,
    _bitsandbytes_8bit,
)


def _to(tensor: torch.Tensor, device: torch.device | None) -> torch.Tensor:
    return tensor if device is None else tensor.to(device)
