"""FP8 weights and FP8 activations, each with one scale a tensor; the activations' is measured once.

``x`` is divided by a stored scale instead of by its own maximum, so no pass over it is needed at
run time. What lies beyond the calibrated maximum saturates. ComfyUI reads these files itself: the
scale is its ``input_scale``, without which it casts activations with a scale of 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch

from ..errors import CalibrationError
from ..kernels import add_low_rank
from ..kernels.float8_way import float8_way
from ..kernels.matmul import static_float8_linear
from .base import Format, QuantizedWeight, register_format
from .float8 import Float8

_SCALAR = (torch.float32, ())
_SMALLEST_MAXIMUM = 1e-12


@register_format
@dataclass(frozen=True)
class StaticFloat8(Float8):
    """FP8 weights and FP8 activations, each with one scale per tensor; that of the activations is
    measured beforehand.

    input_scale: of the layer's activations, positive. It does not count when formats are compared:
    two layers compute alike whatever theirs are, because each weight carries its own as a tensor.
    """

    kind: ClassVar[str] = "static_float8"

    needs_input_scale: ClassVar[bool] = True

    granularity: str = "per-tensor"
    activations: str | None = "float8_e4m3fn"
    input_scale: float | None = field(default=None, compare=False)

    def __post_init__(self):
        if self.input_scale is not None and not 0 < self.input_scale < math.inf:
            raise ValueError(f"input_scale is {self.input_scale}: it must be positive and finite.")

    def quantize(self, weight: torch.Tensor) -> QuantizedWeight:
        """Quantizes as Float8 does, and stores ``input_scale``, float32 []. CalibrationError where
        it is None."""
        return self._store(weight, self._scale(weight.reshape(len(weight), -1)), weight.dtype)

    def _store(
        self, weight: torch.Tensor, scale: torch.Tensor, dtype: torch.dtype
    ) -> QuantizedWeight:
        if self.input_scale is None:
            raise CalibrationError(
                "fp8-static has no scale for the activations. "
                "Connect Calibrate Activations (in Python: pass calibration=), or choose "
                "fp8-dynamic, which needs none."
            )
        of_inputs = torch.tensor(self.input_scale, dtype=torch.float32, device=weight.device)
        return replace(super()._store(weight, scale, dtype), input_scale=of_inputs)

    def with_activation_maximum(self, maximum: float) -> Format:
        scale = max(maximum, _SMALLEST_MAXIMUM) / torch.finfo(self.storage).max
        return replace(self, input_scale=scale)

    def torchao_tensor(self, weight: QuantizedWeight) -> torch.Tensor | None:
        return None  # torchao has the type, and no linear for it

    def nbytes(self, shape: tuple[int, ...]) -> int:
        return super().nbytes(shape) + 4

    def parts(self, shape: tuple[int, ...]) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
        return {**Float8(self.dtype, self.granularity).parts(shape), "input_scale": _SCALAR}

    def linear(
        self, x: torch.Tensor, weight: QuantizedWeight, bias: torch.Tensor | None
    ) -> torch.Tensor:
        return static_float8_linear(x, weight.qdata, weight.scale, weight.input_scale, bias)

    def linear_with_low_rank(
        self,
        x: torch.Tensor,
        weight: QuantizedWeight,
        bias: torch.Tensor | None,
        up: torch.Tensor,
        down: torch.Tensor,
    ) -> torch.Tensor:
        return add_low_rank(self.linear(x, weight, bias), x, up, down)

    def kernel(self, device: torch.device) -> str:
        runs = device.type == "cuda" and float8_way(device)
        return "fp8 x fp8 matmul (torch._scaled_mm)" if runs else Format.kernel(self, device)

    @property
    def product_kind(self) -> str | None:
        return None

    def __str__(self) -> str:
        return f"{self.dtype} {self.granularity}, {self.activations} activations of static scale"
