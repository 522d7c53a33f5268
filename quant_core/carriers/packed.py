"""Any format as a torchao tensor, where torchao has no class of its own that works.

Its INT4 classes need wheels that PyPI does not have. Its INT8 class keeps a scale for
each kernel row of a convolution, which makes a 3 x 3 weight larger than in bfloat16, and cannot run
it.
"""

from __future__ import annotations

import torch
from torchao.utils import TorchAOBaseTensor

from ..formats import FORMATS, Format, QuantizedWeight
from ..formats.base import OPTIONAL_PARTS, PARTS, REQUIRED_PARTS
from .arithmetic import computed_by_format


@computed_by_format
class PackedTensor(TorchAOBaseTensor):
    """A torchao tensor of the stored parts of a weight in any format."""

    dtype_attribute = "original_dtype"
    # torchao reads lists.
    tensor_data_names = list(REQUIRED_PARTS)  # noqa: RUF012
    tensor_attribute_names = ["format", "original_shape", "original_dtype"]  # noqa: RUF012
    optional_tensor_data_names = list(OPTIONAL_PARTS)  # noqa: RUF012

    def __new__(cls, qdata, scale, format, original_shape, original_dtype, *_, **__):
        return torch.Tensor._make_wrapper_subclass(
            cls, original_shape, device=qdata.device, dtype=original_dtype, requires_grad=False
        )

    def __init__(
        self,
        qdata: torch.Tensor,
        scale: torch.Tensor,
        format: Format,
        original_shape: tuple[int, ...],
        original_dtype: torch.dtype,
        zero_point: torch.Tensor | None = None,
        scale_2: torch.Tensor | None = None,
        input_scale: torch.Tensor | None = None,
        codebook: torch.Tensor | None = None,
        smooth_factor: torch.Tensor | None = None,
        proj_up: torch.Tensor | None = None,
        proj_down: torch.Tensor | None = None,
        pre_quant_scale: torch.Tensor | None = None,
    ):
        super().__init__()
        self.qdata = qdata
        self.scale = scale
        self.zero_point = zero_point
        self.scale_2 = scale_2
        self.input_scale = input_scale
        self.codebook = codebook
        self.smooth_factor = smooth_factor
        self.proj_up = proj_up
        self.proj_down = proj_down
        self.pre_quant_scale = pre_quant_scale
        self.format = format
        self.original_shape = tuple(original_shape)
        self.original_dtype = original_dtype

    @classmethod
    def of(cls, weight: QuantizedWeight) -> PackedTensor:
        """The tensor of ``weight``, over the same storage."""
        parts = {name: getattr(weight, name) for name in PARTS}
        return cls(
            format=weight.format,
            original_shape=weight.shape,
            original_dtype=weight.dtype,
            **parts,
        )

    def quantized_weight(self) -> QuantizedWeight:
        """The weight that this tensor holds, over the same storage."""
        parts = {name: getattr(self, name) for name in PARTS}
        return QuantizedWeight.of_parts(
            self.format, parts, self.original_shape, self.original_dtype
        )

    def dequantize(self, output_dtype: torch.dtype | None = None) -> torch.Tensor:
        """The weight as a plain tensor, in ``output_dtype`` (default: its own dtype)."""
        return self.quantized_weight().dequantize(output_dtype)


# By default torch.load reads only registered classes; torchao registers its own in the same way.
torch.serialization.add_safe_globals([PackedTensor, *FORMATS.values()])
