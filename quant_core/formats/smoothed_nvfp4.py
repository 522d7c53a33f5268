"""NVFP4 of a smoothed weight: what SVDQuant is without its branch, and what ComfyUI reads.

``y = (x * pre_quant_scale) @ residual.T``: the residual is NVFP4 of the weight, each of whose
columns was divided by pre_quant_scale, bfloat16 [K]. In ComfyUI's files that is a layer of its own
``nvfp4`` with the tensor ``pre_quant_scale`` beside it. Bits a weight: 4.5, and 16 / N.

``quantize`` knows no activations and smooths nothing; ``rounding.low_rank_branch`` does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch

from ..kernels import stored_linear
from .base import WEIGHT_ONLY, Format, QuantizedWeight, register_format
from .nvfp4 import BLOCK, NVFP4, rounded_activations

_RESIDUAL = NVFP4()


@register_format
@dataclass(frozen=True)
class SmoothedNVFP4(Format):
    """activations: None, or "nvfp4" to round them where tensor cores multiply the two."""

    kind: ClassVar[str] = "nvfp4_smoothed"
    needs_calibration: ClassVar[bool] = True
    copies: ClassVar[int] = 3
    entries: ClassVar[Mapping[str, str]] = {"pre_quant_scale": "pre_quant_scale"}
    rank: ClassVar[int] = 0
    residual_format: ClassVar[Format] = _RESIDUAL
    group_size: ClassVar[int] = BLOCK

    activations: str | None = None

    def __post_init__(self):
        if self.activations not in (None, "nvfp4"):
            raise ValueError(f"No activations {self.activations!r} go with nvfp4.")

    def quantize(self, weight: torch.Tensor) -> QuantizedWeight:
        """weight: [N, K] with K divisible by 16."""
        n, k = weight.shape
        smooth = torch.ones(k, device=weight.device)
        none = smooth.new_empty(n, 0), smooth.new_empty(k, 0)
        return self.assemble(_RESIDUAL.quantize(weight), smooth, *none, weight.dtype)

    def storable_smoothing(self, smooth: torch.Tensor) -> torch.Tensor:
        """The float32 [K] nearest to ``smooth`` whose reciprocals are bfloat16."""
        return smooth.float().reciprocal().bfloat16().float().reciprocal()

    def branch_of(self, matrix: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """A branch of rank 0 for ``matrix`` [N, K]."""
        n, k = matrix.shape
        return matrix.new_empty(n, 0), matrix.new_empty(k, 0)

    def assemble(
        self,
        residual: QuantizedWeight,
        smooth: torch.Tensor,
        up: torch.Tensor,
        down: torch.Tensor,
        dtype: torch.dtype,
    ) -> QuantizedWeight:
        """The weight of ``residual`` [N, K] of the weight whose columns were multiplied by
        ``smooth`` [K]; up, down: a branch of rank 0, which is left out."""
        parts = residual.tensors | {"pre_quant_scale": smooth.float().reciprocal().bfloat16()}
        return QuantizedWeight.of_parts(self, parts, residual.shape, dtype)

    def residual_of(self, weight: QuantizedWeight) -> QuantizedWeight:
        """The smoothed weight as a weight of its own."""
        parts = {"qdata": weight.qdata, "scale": weight.scale, "scale_2": weight.scale_2}
        return QuantizedWeight.of_parts(_RESIDUAL, parts, weight.shape, weight.dtype)

    def dequantize(self, weight: QuantizedWeight, dtype: torch.dtype) -> torch.Tensor:
        values = self.residual_of(weight).dequantize(torch.float32)
        return values.mul_(weight.pre_quant_scale.float()).to(dtype)

    def smoothed(self, x: torch.Tensor, weight: QuantizedWeight) -> torch.Tensor:
        """What the residual is given of x [..., K], in its dtype."""
        return x * weight.pre_quant_scale.to(x.dtype)

    def linear(
        self, x: torch.Tensor, weight: QuantizedWeight, bias: torch.Tensor | None
    ) -> torch.Tensor:
        return stored_linear(self.smoothed(x, weight), self.residual_of(weight), bias)

    def linear_with_low_rank(
        self,
        x: torch.Tensor,
        weight: QuantizedWeight,
        bias: torch.Tensor | None,
        up: torch.Tensor,
        down: torch.Tensor,
    ) -> torch.Tensor:
        given, down = self.smoothed(x, weight), down / weight.pre_quant_scale.to(down.dtype)
        return stored_linear(given, self.residual_of(weight), bias, up, down)

    def emulated(
        self, x: torch.Tensor, weight: QuantizedWeight, bias: torch.Tensor | None
    ) -> torch.Tensor:
        given = self.round_activations(self.smoothed(x, weight)).float()
        y = given @ self.residual_of(weight).dequantize(torch.float32).t()
        return (y if bias is None else y + bias.float()).to(x.dtype)

    def round_activations(self, x: torch.Tensor) -> torch.Tensor:
        """Smoothed activations x [rows, K], rounded as the device does, and back; the same where
        this format leaves activations alone."""
        return rounded_activations(x) if self.activations else x

    def parts(self, shape: tuple[int, ...]) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
        return _RESIDUAL.parts(shape) | {"pre_quant_scale": (torch.bfloat16, (shape[1],))}

    def weight_only(self) -> Format:
        return replace(self, activations=None)

    @property
    def product_kind(self) -> str | None:
        return None

    def stock_marker(self) -> dict[str, Any]:
        return {"format": "nvfp4"} | ({} if self.activations else {WEIGHT_ONLY: True})

    def __str__(self) -> str:
        return "nvfp4 blocks of 16, smoothed" + (", nvfp4 activations" if self.activations else "")
