"""INT8 weights, symmetric, one scale a row or a tensor; optionally INT8 activations, a scale a row.

The scale maps the largest magnitude to 127.5 and codes are clamped to [-128, 127], as in torchao's
symmetric ``choose_qparams_affine``: half a step at the very end buys 0.4 % finer steps elsewhere.
Codes and scales equal torchao's bit by bit on float32 weights, but for rows of magnitudes below
1.5e-5, which torchao's floor under the scale rounds coarsely or away.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

import torch

from ..kernels import Coding, eight_bit_linear, stored_linear
from ..kernels.matmul import INT8_MATMUL_DEVICES, fits_int8_matmul
from ..kernels.plain import dequantize_scaled
from ..kernels.product import int8_kernel
from .base import (
    Format,
    Grid,
    QuantizedWeight,
    absolute_maximum,
    register_format,
    row_blocks,
    scale_shape,
    snap_integers,
    torchao_scale,
)

_HALF_RANGE = 127.5
# An all-zero row gets a harmless scale, whose reciprocal is finite.
_SMALLEST_SCALE = 1e-30


@register_format
@dataclass(frozen=True)
class Int8(Format):
    """INT8 weights with one scale per row or per tensor, and optionally INT8 activations.

    granularity: "per-row" or "per-tensor". activations: None (computed in the input's dtype) or
    "int8" (rounded per row at run time).
    """

    kind: ClassVar[str] = "int8"

    granularity: str = "per-row"
    activations: str | None = None

    def quantize(self, weight: torch.Tensor) -> QuantizedWeight:
        """weight: [N, K], or [N, ...] (convolutions: a row is an output channel)."""
        return self._store(weight, self._scale(weight.reshape(len(weight), -1)), weight.dtype)

    def grid(self, weight: torch.Tensor, importance: torch.Tensor | None = None) -> Grid | None:
        scale = self._scale(weight)
        step = scale.view(-1, 1).expand(len(weight), 1)
        store = partial(self._store, scale=scale, dtype=weight.dtype)
        return Grid(step, None, snap_integers(-128, 127), store)

    def _scale(self, matrix: torch.Tensor) -> torch.Tensor:
        return (absolute_maximum(matrix, self.granularity) / _HALF_RANGE).clamp_(_SMALLEST_SCALE)

    def _store(
        self, weight: torch.Tensor, scale: torch.Tensor, dtype: torch.dtype
    ) -> QuantizedWeight:
        shape = tuple(weight.shape)
        matrix = weight.reshape(shape[0], -1)
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
            dtype,
        )

    def dequantize(self, weight: QuantizedWeight, dtype: torch.dtype) -> torch.Tensor:
        return dequantize_scaled(weight.qdata, weight.scale, dtype)

    def nbytes(self, shape: tuple[int, ...]) -> int:
        return math.prod(shape) + 4 * math.prod(scale_shape(shape, self.granularity))

    def linear(
        self, x: torch.Tensor, weight: QuantizedWeight, bias: torch.Tensor | None
    ) -> torch.Tensor:
        if self.activations is None or not fits_int8_matmul(x, weight.qdata):
            return stored_linear(x, weight, bias)
        return eight_bit_linear(x, weight.qdata, weight.scale, bias)

    def linear_with_low_rank(
        self,
        x: torch.Tensor,
        weight: QuantizedWeight,
        bias: torch.Tensor | None,
        up: torch.Tensor,
        down: torch.Tensor,
    ) -> torch.Tensor:
        if self.activations is None or not fits_int8_matmul(x, weight.qdata):
            return stored_linear(x, weight, bias, up, down)
        return eight_bit_linear(x, weight.qdata, weight.scale, bias, up, down)

    @property
    def coding(self) -> Coding:
        return Coding(8, "integer", "row" if self.granularity == "per-row" else "tensor")

    def dynamic(self, shape: tuple[int, ...]) -> Format | None:
        is_matrix = len(shape) == 2 and shape[1] > 1  # torch._int_mm misreads K = 1
        return replace(self, activations="int8") if is_matrix else None

    def weight_only(self) -> Format:
        return replace(self, activations=None)

    def in_rows(self, weight: QuantizedWeight) -> QuantizedWeight:
        scale = weight.scale.expand(scale_shape(weight.shape, "per-row"))
        return replace(weight, format=replace(self, granularity="per-row"), scale=scale)

    def torchao_tensor(self, weight: QuantizedWeight) -> torch.Tensor | None:
        """None for convolutions, which torchao's class does not run."""
        if len(weight.shape) > 2:
            return None
        from torchao.quantization import Int8Tensor, PerRow
        from torchao.quantization.quantize_.workflows.int8.int8_tensor import (
            QuantizeTensorToInt8Kwargs,
        )

        scale, block_size = torchao_scale(weight, self.granularity)
        dynamic = QuantizeTensorToInt8Kwargs(granularity=PerRow()) if self.activations else None
        return Int8Tensor(weight.qdata, scale, block_size, weight.dtype, act_quant_kwargs=dynamic)

    def stock_marker(self) -> dict[str, Any]:
        return {"format": "int8_tensorwise"}

    def kernel(self, device: torch.device) -> str:
        if self.activations is None or device.type not in INT8_MATMUL_DEVICES:
            return super().kernel(device)
        way = int8_kernel(device)
        return way or f"{super().kernel(device)}, weight-only: no INT8 matmul here"

    def __str__(self) -> str:
        activations = f", {self.activations} activations" if self.activations else ""
        return f"int8 {self.granularity}{activations}"
