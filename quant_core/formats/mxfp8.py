"""MXFP8: E4M3 codes in blocks of 32 along K, each with a power of two (E8M0) for a scale.

The power is the least that brings the block within E4M3's range. Tensors are those of ComfyUI's
stock layout, bit by bit (equal to comfy-kitchen's quantize_mxfp8): rows and columns padded to 32,
scales swizzled for the tensor cores. They are uint8 here, which every backend computes with; the
file's dtype means nothing to stock, which views the bytes. Bits a weight: 8.25, and the padding.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

import torch

from ..codes.swizzle import (
    multiplies_blocks,
    pad_both,
    padded_to,
    swizzle,
    swizzled_shape,
    unswizzle,
)
from ..kernels import Coding
from .base import (
    WEIGHT_ONLY,
    Format,
    Grid,
    QuantizedWeight,
    register_format,
    require_finite,
    row_blocks,
    snap_float8,
    take_swizzled_rows,
)

BLOCK = 32
_LARGEST_CODE = 448.0
_BIAS, _LARGEST_SCALE = 127, 254


@register_format
@dataclass(frozen=True)
class MXFP8(Format):
    """MXFP8 weights: E4M3 codes in blocks of 32, each with a power of two as its scale.

    activations: None, or "mxfp8" to round them too where tensor cores multiply the two.
    """

    kind: ClassVar[str] = "mxfp8"

    activations: str | None = None

    def __post_init__(self):
        if self.activations not in (None, self.kind):
            raise ValueError(f"No activations {self.activations!r} go with {self.kind}.")

    def quantize(self, weight: torch.Tensor) -> QuantizedWeight:
        """weight: [N, K]."""
        return self._store(weight, _scale(pad_both(weight, BLOCK)), weight.dtype)

    def grid(self, weight: torch.Tensor, importance: torch.Tensor | None = None) -> Grid | None:
        if weight.shape[1] % BLOCK:
            return None
        scale = _scale(pad_both(weight, BLOCK))
        step = _value(scale[: len(weight)])
        store = partial(self._store, scale=scale, dtype=weight.dtype)
        return Grid(step, None, snap_float8(torch.float8_e4m3fn), store)

    def _store(
        self, weight: torch.Tensor, scale: torch.Tensor, dtype: torch.dtype
    ) -> QuantizedWeight:
        padded = pad_both(weight, BLOCK)
        qdata = torch.empty(padded.shape, dtype=torch.float8_e4m3fn, device=weight.device)
        for rows in row_blocks(padded):
            values = padded[rows].float().unflatten(1, (-1, BLOCK))
            values = values / _value(scale[rows]).unsqueeze(-1)
            qdata[rows] = values.clamp_(-_LARGEST_CODE, _LARGEST_CODE).flatten(1)
        return QuantizedWeight(self, qdata, swizzle(scale), None, tuple(weight.shape), dtype)

    def dequantize(self, weight: QuantizedWeight, dtype: torch.dtype) -> torch.Tensor:
        n, k = weight.shape
        high, wide = weight.qdata.shape
        scale = unswizzle(weight.scale, high, wide // BLOCK)
        out = torch.empty(high, wide, dtype=dtype, device=weight.qdata.device)
        for rows in row_blocks(out):
            values = weight.qdata[rows].float().unflatten(1, (-1, BLOCK))
            out[rows] = values.mul_(_value(scale[rows]).unsqueeze(-1)).flatten(1)
        return out[:n, :k].contiguous()

    @property
    def coding(self) -> Coding:
        return Coding(8, "e4m3", "swizzled", BLOCK, scale_values="e8m0")

    def take_rows(self, weight: QuantizedWeight, rows: slice) -> QuantizedWeight:
        return take_swizzled_rows(weight, rows, weight.qdata.shape[1] // BLOCK, BLOCK)

    def parts(self, shape: tuple[int, ...]) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
        n, k = shape
        high, wide = padded_to(n, BLOCK), padded_to(k, BLOCK)
        return {
            "qdata": (torch.float8_e4m3fn, (high, wide)),
            "scale": (torch.uint8, swizzled_shape(high, wide // BLOCK)),
        }

    def dynamic(self, shape: tuple[int, ...]) -> Format | None:
        return replace(self, activations=self.kind)

    def weight_only(self) -> Format:
        return replace(self, activations=None)

    def stock_marker(self) -> dict[str, Any]:
        return {"format": "mxfp8"} | ({} if self.activations else {WEIGHT_ONLY: True})

    def kernel(self, device: torch.device) -> str:
        if self.activations is None or not multiplies_blocks(device):
            return super().kernel(device)
        return "mxfp8 x mxfp8 matmul in ComfyUI (comfy-kitchen)"

    def __str__(self) -> str:
        return "mxfp8 blocks of 32" + (", mxfp8 activations" if self.activations else "")


def _scale(padded: torch.Tensor) -> torch.Tensor:
    """The biased exponent of each block's power, uint8 [N, K / BLOCK]."""
    scale = padded.new_empty(len(padded), padded.shape[1] // BLOCK, dtype=torch.uint8)
    for rows in row_blocks(padded):
        largest = padded[rows].float().unflatten(1, (-1, BLOCK)).abs().amax(dim=-1)
        require_finite(largest)
        scale[rows] = _power_over(largest / _LARGEST_CODE)
    return scale


def _power_over(ratio: torch.Tensor) -> torch.Tensor:
    """The biased exponent, uint8, of the least power of two that is not below ``ratio``; zero for
    zero, as stock has it."""
    fraction, exponent = torch.frexp(ratio)
    power = exponent - (fraction == 0.5).int() + _BIAS
    return torch.where(ratio == 0, 0, power.clamp(0, _LARGEST_SCALE)).to(torch.uint8)


def _value(scale: torch.Tensor) -> torch.Tensor:
    """2 ** (scale - 127) as float32, put together from its bits; the least one is subnormal."""
    bits = scale.int() << 23
    return torch.where(scale == 0, 1 << 22, bits).view(torch.float32)
