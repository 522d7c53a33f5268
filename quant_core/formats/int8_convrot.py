"""INT8 weights and activations, both rotated in groups along K: ComfyUI's INT8 with ``convrot``.

One scale a row; the largest magnitude is code 127. Codes and scales are comfy-kitchen's
``quantize_int8_convrot_weight``'s bit by bit on float32 weights; narrower ones are rotated in
float32 here, where kitchen rounds the rotated weight to their dtype first. Product error with
activations of which some channels are 30 times as large: 0.0112, where ``int8-dynamic`` has 0.0519.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch

from ..codes.rotation import SIZES, is_size, rotate
from ..kernels import eight_bit_linear, stored_linear
from ..kernels.matmul import INT8_MATMUL_DEVICES, fits_int8_matmul
from ..kernels.product import int8_kernel
from .base import (
    WEIGHT_ONLY,
    Format,
    Grid,
    QuantizedWeight,
    register_format,
    require_finite,
    row_blocks,
    snap_integers,
)
from .int8 import Int8

_LARGEST_CODE = 127.0
# A row of zeros gets a harmless scale.
_SMALLEST_SCALE = 1e-30


@register_format
@dataclass(frozen=True)
class Int8ConvRot(Format):
    """rotation: values along K that are rotated together, a power of 4. activations: None
    (computed in the input's dtype) or "int8" (rotated and quantized per row at run time)."""

    kind: ClassVar[str] = "int8_convrot"

    rotation: int = SIZES[0]
    activations: str | None = None

    def __post_init__(self):
        require_rotated(self.rotation, self.activations)

    def quantize(self, weight: torch.Tensor) -> QuantizedWeight:
        """weight: [N, K], K a multiple of the rotation."""
        shape = tuple(weight.shape)
        qdata = torch.empty(shape, dtype=torch.int8, device=weight.device)
        scale = torch.empty(shape[0], 1, device=weight.device)
        for rows in row_blocks(weight):
            values = self.in_own_basis(weight[rows])
            scale[rows] = _scale(values)
            qdata[rows] = values.div_(scale[rows]).round_().clamp_(-128, 127)
        return QuantizedWeight(self, qdata, scale, None, shape, weight.dtype)

    def in_own_basis(self, matrix: torch.Tensor) -> torch.Tensor:
        return rotate(matrix.float(), self.rotation)

    def grid(self, weight: torch.Tensor, importance: torch.Tensor | None = None) -> Grid | None:
        scale = _scale(weight)

        def store(values: torch.Tensor) -> QuantizedWeight:
            qdata = torch.empty(values.shape, dtype=torch.int8, device=values.device)
            for rows in row_blocks(values):
                qdata[rows] = (values[rows] / scale[rows]).round_().clamp_(-128, 127)
            return QuantizedWeight(self, qdata, scale, None, tuple(values.shape), values.dtype)

        return Grid(scale, None, snap_integers(-128, 127), store)

    def dequantize(self, weight: QuantizedWeight, dtype: torch.dtype) -> torch.Tensor:
        out = torch.empty(weight.shape, dtype=dtype, device=weight.qdata.device)
        for rows in row_blocks(out):
            out[rows] = rotate(weight.qdata[rows].float() * weight.scale[rows], self.rotation)
        return out

    def nbytes(self, shape: tuple[int, ...]) -> int:
        return math.prod(shape) + 4 * shape[0]

    def linear(
        self, x: torch.Tensor, weight: QuantizedWeight, bias: torch.Tensor | None
    ) -> torch.Tensor:
        if self.activations is None:
            return super().linear(x, weight, bias)
        return rotated_linear(x, weight.qdata, weight.scale, bias, self.rotation)

    def linear_with_low_rank(
        self,
        x: torch.Tensor,
        weight: QuantizedWeight,
        bias: torch.Tensor | None,
        up: torch.Tensor,
        down: torch.Tensor,
    ) -> torch.Tensor:
        # On a CPU nothing is saved. A layer that is not loaded adds its LoRA beside the product:
        # the same way here gives the same bits.
        if self.activations is None or x.device.type == "cpu":
            return super().linear_with_low_rank(x, weight, bias, up, down)
        return rotated_linear(x, weight.qdata, weight.scale, bias, self.rotation, up, down)

    def dynamic(self, shape: tuple[int, ...]) -> Format | None:
        return replace(self, activations="int8")

    def weight_only(self) -> Format:
        return replace(self, activations=None)

    def in_rows(self, weight: QuantizedWeight) -> QuantizedWeight:
        return weight

    def stock_marker(self) -> dict[str, Any]:
        marker = {
            "format": "int8_tensorwise",
            "convrot": True,
            "convrot_groupsize": self.rotation,
        }
        return marker | ({} if self.activations else {WEIGHT_ONLY: True})

    def kernel(self, device: torch.device) -> str:
        return rotated_kernel(self, device) or super().kernel(device)

    def __str__(self) -> str:
        activations = f", {self.activations} activations" if self.activations else ""
        return f"int8 per-row, rotated by {self.rotation}{activations}"


def _scale(values: torch.Tensor) -> torch.Tensor:
    largest = values.abs().amax(1, keepdim=True)
    require_finite(largest)
    return (largest / _LARGEST_CODE).clamp_(_SMALLEST_SCALE)


def require_rotated(rotation: int, activations: str | None) -> None:
    """ValueError where ``rotation`` is not a power of 4, or activations are neither None nor
    "int8"."""
    if not is_size(rotation):
        raise ValueError(f"No rotation by {rotation}: use a power of 4, such as 256, 64 or 16.")
    if activations not in (None, "int8"):
        raise ValueError(f"No activations {activations!r} go with rotated INT8: use int8 or None.")


def rotated_linear(
    x: torch.Tensor,
    codes: torch.Tensor,
    scale: torch.Tensor,
    bias: torch.Tensor | None,
    rotation: int,
    up: torch.Tensor | None = None,
    down: torch.Tensor | None = None,
) -> torch.Tensor:
    """``x @ (W + up @ down).T + bias`` in the dtype of x [..., K]; W is rotated: codes int8 [N, K],
    a float32 scale a row [N, 1]. x is rotated and rounded to INT8, a scale a row, where INT8 can be
    multiplied; elsewhere rotated alone. up [N, R], down [R, K]: a LoRA of the weight's own basis,
    which is rotated like x."""
    rows = x.reshape(-1, x.shape[-1])
    # A CPU multiplies float32 faster than the narrower types.
    turned = rotate(rows.float() if x.device.type == "cpu" else rows, rotation)
    if up is not None:
        up, down = up.to(turned.dtype), rotate(down.to(turned.dtype), rotation)
    if fits_int8_matmul(rows, codes):
        y = eight_bit_linear(turned, codes, scale.view(-1, 1), bias, up, down, dtype=x.dtype)
    else:
        bias = None if bias is None else bias.to(turned.dtype)
        shape = tuple(codes.shape)
        weight = QuantizedWeight(Int8(), codes, scale.view(-1, 1), None, shape, x.dtype)
        y = stored_linear(turned, weight, bias, up, down).to(x.dtype)
    return y.view(*x.shape[:-1], len(codes))


def rotated_kernel(fmt: Format, device: torch.device) -> str | None:
    """What multiplies ``fmt`` on ``device``, in words; None where INT8 is not multiplied."""
    if fmt.activations is None or device.type not in INT8_MATMUL_DEVICES:
        return None
    way = int8_kernel(device)
    return way and f"rotation, {way}"
