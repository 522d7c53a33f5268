"""INT8 and FP8 matrices as torchao's own tensors, which other tools know by their class and name.

torchao's safetensors writer, diffusers and ``isinstance`` take them for what they derive from;
products go through the formats (see ``arithmetic``). torch.load needs this package to read them,
as it needs torchao for torchao's.

Tested by tests/quant_core/carriers/test_torchao_tensors.py.
"""

from __future__ import annotations

import torch
import torchao.quantization as torchao

from ..formats import Float8, Format, Int8, QuantizedWeight
from ..formats.base import scale_shape
from .arithmetic import computed_by_format


@computed_by_format
class Int8Tensor(torchao.Int8Tensor):
    """torchao's INT8 tensor, whose products are those of ``formats.Int8``; scales are [N, 1] or [1,
    1]."""

    dtype_attribute = "dtype"

    def dequantize(self, output_dtype: torch.dtype | None = None) -> torch.Tensor:
        """The weight as a plain tensor, in ``output_dtype`` (default: its own dtype)."""
        return self.quantized_weight().dequantize(output_dtype)

    def quantized_weight(self) -> QuantizedWeight:
        """The weight that this tensor holds, over the same storage."""
        activations = "int8" if self.act_quant_kwargs else None
        return _weight_of(self, Int8(_granularity(self), activations))


@computed_by_format
class Float8Tensor(torchao.Float8Tensor):
    """torchao's FP8 tensor, whose products are those of ``formats.Float8``; scales have the
    weight's dimensions."""

    dtype_attribute = "dtype"

    def dequantize(self, output_dtype: torch.dtype | None = None) -> torch.Tensor:
        """The weight as a plain tensor, in ``output_dtype`` (default: its own dtype)."""
        return self.quantized_weight().dequantize(output_dtype)

    def quantized_weight(self) -> QuantizedWeight:
        """The weight that this tensor holds, over the same storage."""
        dtype = str(self.qdata.dtype).removeprefix("torch.")
        activations = "float8_e4m3fn" if self.act_quant_kwargs else None
        return _weight_of(self, Float8(dtype, _granularity(self), activations))


_CARRIERS = {cls.__bases__[0]: cls for cls in (Int8Tensor, Float8Tensor)}


def computing_by_format(tensor: torch.Tensor) -> torch.Tensor:
    """One of torchao's tensors as the class here that derives from its own, over the same
    storage."""
    carrier = _CARRIERS[type(tensor)]
    names, attributes = tensor.__tensor_flatten__()
    parts = {name: getattr(tensor, name) for name in names}
    return carrier.__tensor_unflatten__(parts, attributes, None, None)


def _granularity(tensor: torch.Tensor) -> str:
    return "per-tensor" if list(tensor.block_size) == list(tensor.shape) else "per-row"


def _weight_of(tensor: torch.Tensor, fmt: Format) -> QuantizedWeight:
    shape = tuple(tensor.shape)
    scale = tensor.scale.view(scale_shape(shape, fmt.granularity))
    return QuantizedWeight(fmt, tensor.qdata, scale, None, shape, tensor.dtype)


torch.serialization.add_safe_globals([Int8Tensor, Float8Tensor])
