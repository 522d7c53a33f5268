"""FP8 weights, scaled per row or per tensor; optionally FP8 activations, scaled per row.

The scale maps the largest magnitude to the largest finite code. A floor under it keeps an all-zero
row finite, where torchao 0.18 divides zero by zero. Values are clamped before the cast: a cast to
FP8 does not saturate.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

import torch

from ..kernels import Coding, eight_bit_linear, stored_linear
from ..kernels.float8_way import float8_way
from ..kernels.matmul import fits_float8_matmul
from ..kernels.plain import dequantize_scaled
from .base import (
    WEIGHT_ONLY,
    Format,
    Grid,
    QuantizedWeight,
    absolute_maximum,
    register_format,
    row_blocks,
    scale_shape,
    snap_float8,
    torchao_scale,
)

_SMALLEST_MAXIMUM = 1e-30
# torch._scaled_mm works in 16-byte rows on both sides.
SCALED_MM_MULTIPLE = 16
_ACTIVATIONS = "float8_e4m3fn"


@register_format
@dataclass(frozen=True)
class Float8(Format):
    """FP8 weights with one scale per row or per tensor, and optionally FP8 activations.

    dtype: "float8_e4m3fn" or "float8_e5m2". granularity: "per-row" or "per-tensor". activations:
    None (computed in the input's dtype) or "float8_e4m3fn" (rounded per row at run time).
    """

    kind: ClassVar[str] = "float8"

    dtype: str = "float8_e4m3fn"
    granularity: str = "per-row"
    activations: str | None = None

    @property
    def storage(self) -> torch.dtype:
        """The torch dtype of the codes."""
        return getattr(torch, self.dtype)

    def quantize(self, weight: torch.Tensor) -> QuantizedWeight:
        """weight: [N, K], or [N, ...] (convolutions: a row is an output channel)."""
        return self._store(weight, self._scale(weight.reshape(len(weight), -1)), weight.dtype)

    def grid(self, weight: torch.Tensor, importance: torch.Tensor | None = None) -> Grid | None:
        scale = self._scale(weight)
        step = scale.view(-1, 1).expand(len(weight), 1)
        store = partial(self._store, scale=scale, dtype=weight.dtype)
        return Grid(step, None, snap_float8(self.storage), store)

    def _scale(self, matrix: torch.Tensor) -> torch.Tensor:
        return self.scale_for(absolute_maximum(matrix, self.granularity).clamp_(_SMALLEST_MAXIMUM))

    def _store(
        self, weight: torch.Tensor, scale: torch.Tensor, dtype: torch.dtype
    ) -> QuantizedWeight:
        shape = tuple(weight.shape)
        matrix = weight.reshape(shape[0], -1)
        limit = torch.finfo(self.storage).max
        qdata = torch.empty(matrix.shape, dtype=self.storage, device=weight.device)
        for block in row_blocks(matrix):
            values = matrix[block].to(torch.float32, copy=True)
            step = scale if scale.dim() == 0 else scale[block]
            qdata[block] = values.div_(step).clamp_(-limit, limit)
        return QuantizedWeight(
            self,
            qdata.view(shape),
            scale.view(scale_shape(shape, self.granularity)),
            None,
            shape,
            dtype,
        )

    def scale_for(self, largest: torch.Tensor) -> torch.Tensor:
        """The scale for magnitudes up to ``largest`` (float32, positive), of the same shape."""
        return largest / torch.finfo(self.storage).max

    def dequantize(self, weight: QuantizedWeight, dtype: torch.dtype) -> torch.Tensor:
        return dequantize_scaled(weight.qdata, weight.scale, dtype)

    def nbytes(self, shape: tuple[int, ...]) -> int:
        return math.prod(shape) + 4 * math.prod(scale_shape(shape, self.granularity))

    def linear(
        self, x: torch.Tensor, weight: QuantizedWeight, bias: torch.Tensor | None
    ) -> torch.Tensor:
        if self.activations is None or not fits_float8_matmul(x):
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
        if self.activations is None or not fits_float8_matmul(x):
            return stored_linear(x, weight, bias, up, down)
        return eight_bit_linear(x, weight.qdata, weight.scale, bias, up, down)

    @property
    def coding(self) -> Coding:
        values = "e4m3" if self.storage == torch.float8_e4m3fn else "e5m2"
        return Coding(8, values, "row" if self.granularity == "per-row" else "tensor")

    def dynamic(self, shape: tuple[int, ...]) -> Format | None:
        fits = self.dtype == _ACTIVATIONS and fits_scaled_mm(shape)
        return replace(self, activations=_ACTIVATIONS) if fits else None

    def weight_only(self) -> Format:
        return Float8(self.dtype, self.granularity) if self.activations else self

    @property
    def needs_fp8_matmul(self) -> bool:
        return self.activations is not None

    def in_rows(self, weight: QuantizedWeight) -> QuantizedWeight:
        """A static scale of activations is dropped for one that is found at run time: the rows may
        go to a weight whose tensors had different ones."""
        scale = weight.scale.expand(scale_shape(weight.shape, "per-row"))
        fmt = Float8(self.dtype, "per-row", self.activations)
        return replace(weight, format=fmt, scale=scale, input_scale=None)

    def torchao_tensor(self, weight: QuantizedWeight) -> torch.Tensor | None:
        from torchao.float8.inference import Float8MMConfig
        from torchao.quantization import Float8Tensor, PerRow, PerTensor
        from torchao.quantization.quantize_.workflows import QuantizeTensorToFloat8Kwargs

        scale, block_size = torchao_scale(weight, self.granularity)
        dynamic = mm_config = None
        if self.activations:
            granularity = PerRow() if self.granularity == "per-row" else PerTensor()
            # The lower bound keeps an all-zero token finite.
            dynamic = QuantizeTensorToFloat8Kwargs(granularity=granularity, hp_value_lb=1e-12)
            mm_config = Float8MMConfig(use_fast_accum=True)
        return Float8Tensor(
            weight.qdata,
            scale,
            block_size=block_size,
            mm_config=mm_config,
            act_quant_kwargs=dynamic,
            dtype=weight.dtype,
        )

    def stock_marker(self) -> dict[str, Any] | None:
        if self.granularity != "per-tensor":
            return None
        weight_only = {} if self.activations else {WEIGHT_ONLY: True}
        return {"format": self.dtype, **weight_only}

    def kernel(self, device: torch.device) -> str:
        if self.activations is None or device.type != "cuda":
            return super().kernel(device)
        way = float8_way(device)
        if way is None:
            return f"{super().kernel(device)}, weight-only: no FP8 matmul here"
        return f"fp8 x fp8 matmul (torch._scaled_mm, {way})"

    def __str__(self) -> str:
        activations = f", {self.activations} activations" if self.activations else ""
        return f"{self.dtype} {self.granularity}{activations}"


def fits_scaled_mm(shape: tuple[int, ...]) -> bool:
    """Whether torch._scaled_mm takes a weight of shape [N, K]."""
    return len(shape) == 2 and all(size % SCALED_MM_MULTIPLE == 0 for size in shape)
