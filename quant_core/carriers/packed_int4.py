"""INT4 as a torchao tensor: torchao's own INT4 classes need wheels that PyPI does not have."""

from __future__ import annotations

import torch
from torchao.utils import TorchAOBaseTensor

from ..formats import Int4, QuantizedWeight


class PackedInt4Tensor(TorchAOBaseTensor):
    """qdata: uint8 [N, K / 2]; scale, zero_point: bfloat16 [N, K / group]. See ``formats.int4``."""

    tensor_data_names = ["qdata", "scale", "zero_point"]  # noqa: RUF012 - torchao reads lists
    tensor_attribute_names = ["format", "original_shape", "original_dtype"]  # noqa: RUF012

    def __new__(cls, qdata, scale, zero_point, format, original_shape, original_dtype):
        return torch.Tensor._make_wrapper_subclass(
            cls, original_shape, device=qdata.device, dtype=original_dtype, requires_grad=False
        )

    def __init__(
        self,
        qdata: torch.Tensor,
        scale: torch.Tensor,
        zero_point: torch.Tensor,
        format: Int4,
        original_shape: tuple[int, ...],
        original_dtype: torch.dtype,
    ):
        super().__init__()
        self.qdata = qdata
        self.scale = scale
        self.zero_point = zero_point
        self.format = format
        self.original_shape = tuple(original_shape)
        self.original_dtype = original_dtype

    def quantized_weight(self) -> QuantizedWeight:
        return QuantizedWeight(
            self.format,
            self.qdata,
            self.scale,
            self.zero_point,
            self.original_shape,
            self.original_dtype,
        )

    def dequantize(self, output_dtype: torch.dtype | None = None) -> torch.Tensor:
        return self.quantized_weight().dequantize(output_dtype)


@PackedInt4Tensor.implements(torch.ops.aten.linear.default)
@PackedInt4Tensor.implements_torch_function(torch.nn.functional.linear)
def _linear(func, types, args, kwargs):
    x, weight, *rest = args
    bias = rest[0] if rest else kwargs.get("bias")
    return weight.format.linear(x, weight.quantized_weight(), bias)
