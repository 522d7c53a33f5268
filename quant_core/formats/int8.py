"""INT8 weights, symmetric, one scale a row or a tensor; optionally INT8 activations, a scale a row.

The scale maps the largest magnitude to 127.5 and codes are clamped to [-128, 127], as in torchao's
symmetric ``choose_qparams_affine``: half a step at the very end buys 0.4 % finer steps elsewhere.
Codes and scales equal torchao's bit by bit on float32 weights, but for rows of magnitudes below
1.5e-5, which torchao's floor under the scale rounds coarsely or away.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F

from .base import (
    Format,
    QuantizedWeight,
    absolute_maximum,
    register_format,
    row_blocks,
    scale_count,
    scale_shape,
)

_HALF_RANGE = 127.5
# An all-zero row gets a harmless scale, whose reciprocal is finite.
_SMALLEST_SCALE = 1e-30
_INT8_MATMUL_DEVICES = ("cpu", "cuda")  # whose torch._int_mm exists


@register_format
@dataclass(frozen=True)
class Int8(Format):
    """granularity: "per-row" or "per-tensor". activations: None (computed in the input's dtype) or
    "int8" (quantized per row at run time)."""

    kind: ClassVar[str] = "int8"

    granularity: str = "per-row"
    activations: str | None = None

    def quantize(self, weight: torch.Tensor) -> QuantizedWeight:
        """weight: [N, K], or [N, ...] (convolutions: a row is an output channel)."""
        shape = tuple(weight.shape)
        matrix = weight.reshape(shape[0], -1)
        scale = (absolute_maximum(matrix, self.granularity) / _HALF_RANGE).clamp_(_SMALLEST_SCALE)
        qdata = torch.empty(matrix.shape, dtype=torch.int8, device=weight.device)
        for block in row_blocks(matrix):
            values = matrix[block].to(torch.float32, copy=True)
            step = scale if scale.dim() == 0 else scale[block]
            qdata[block] = values.mul_(step.reciprocal()).round_().clamp_(-128, 127)
        return QuantizedWeight(
            self,
            qdata.view(shape),
            scale.view(scale_shape(shape, self.granularity)),
            None,
            shape,
            weight.dtype,
        )

    def dequantize(self, weight: QuantizedWeight, dtype: torch.dtype) -> torch.Tensor:
        # The product is formed in float32 and rounded once, inside one kernel.
        out = torch.empty(weight.qdata.shape, dtype=dtype, device=weight.qdata.device)
        return torch.mul(weight.qdata, weight.scale, out=out)

    def nbytes(self, shape: tuple[int, ...]) -> int:
        return math.prod(shape) + 4 * scale_count(shape, self.granularity)

    def linear(
        self, x: torch.Tensor, weight: QuantizedWeight, bias: torch.Tensor | None
    ) -> torch.Tensor:
        if self.activations is None or not fits_int8_matmul(x, weight.qdata):
            return F.linear(x, self.dequantize(weight, x.dtype), bias)
        codes, scale = quantize_rows(x.reshape(-1, x.shape[-1]))
        products = torch._int_mm(codes, weight.qdata.t())
        y = products * scale * weight.scale.reshape(1, -1)
        if bias is not None:
            y += bias
        return y.to(x.dtype).reshape(*x.shape[:-1], weight.shape[0])

    def stock_marker(self) -> dict[str, Any]:
        return {"format": "int8_tensorwise"}

    def kernel(self, device: torch.device) -> str:
        if self.activations is None or device.type not in _INT8_MATMUL_DEVICES:
            return super().kernel(device)
        return "int8 x int8 matmul (torch._int_mm)"

    def __str__(self) -> str:
        activations = f", {self.activations} activations" if self.activations else ""
        return f"int8 {self.granularity}{activations}"


def quantize_rows(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Activations [M, K] as int8 codes [M, K], float32 scales [M, 1]; an all-zero row is zeros."""
    values = x.float()
    scale = values.abs().amax(dim=1, keepdim=True).div_(127).clamp_(_SMALLEST_SCALE)
    return values.div(scale).round_().to(torch.int8), scale


def fits_int8_matmul(x: torch.Tensor, codes: torch.Tensor) -> bool:
    """CUDA's int8 matmul wants more than 16 rows of x, K and N in eights; a CPU takes any K but 1,
    where torch 2.11 gives wrong numbers."""
    if x.device.type != "cuda":
        return x.device.type in _INT8_MATMUL_DEVICES and codes.dim() == 2 and codes.shape[1] > 1
    m = x.numel() // x.shape[-1]
    return codes.dim() == 2 and m > 16 and codes.shape[0] % 8 == 0 and codes.shape[1] % 8 == 0
