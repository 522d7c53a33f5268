"""Floating point weights of 3 to 7 bits, fpX_eAwB with X = A + B + 1, one float32 scale a row.

Codes as in ``minifloat``, packed without gaps. The scale maps the row's largest magnitude to the
largest code, as in torchao's FPX (FP6-LLM). Bits a weight: X + 32 / K for K in eights.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch

from ..codes.bits import pack, packed_bytes, unpack
from ..codes.minifloat import encode, largest_value, looked_up, values_of
from ..kernels import Coding
from .base import (
    Format,
    Grid,
    QuantizedWeight,
    absolute_maximum,
    register_format,
    row_blocks,
    snap_table,
)

# An all-zero row gets a harmless scale.
_SMALLEST_SCALE = 1e-30


@register_format
@dataclass(frozen=True)
class FloatX(Format):
    """Floating point weights of 3 to 7 bits with one scale per row.

    exponent, mantissa: how many bits each has, beside the sign.
    """

    kind: ClassVar[str] = "float_x"

    exponent: int = 3
    mantissa: int = 2

    def __post_init__(self):
        if not (self.exponent >= 1 and self.mantissa >= 0 and 3 <= self.bits <= 7):
            raise ValueError(
                f"fp{self.bits}_e{self.exponent}m{self.mantissa} is not a format of 3 to 7 bits: "
                "a sign, at least one exponent bit, and the mantissa."
            )

    @property
    def bits(self) -> int:
        """Bits of one code."""
        return 1 + self.exponent + self.mantissa

    def quantize(self, weight: torch.Tensor) -> QuantizedWeight:
        """weight: [N, K], or [N, ...] (a row is an output channel)."""
        return self._store(weight, self._scale(weight.reshape(len(weight), -1)), weight.dtype)

    def grid(self, weight: torch.Tensor, importance: torch.Tensor | None = None) -> Grid | None:
        scale = self._scale(weight)
        values = sorted(set(values_of(self.exponent, self.mantissa)))
        store = partial(self._store, scale=scale, dtype=weight.dtype)
        return Grid(scale, None, snap_table(torch.tensor(values, device=weight.device)), store)

    def _scale(self, matrix: torch.Tensor) -> torch.Tensor:
        largest = largest_value(self.exponent, self.mantissa)
        return (absolute_maximum(matrix, "per-row") / largest).clamp_(_SMALLEST_SCALE)

    def _store(
        self, weight: torch.Tensor, scale: torch.Tensor, dtype: torch.dtype
    ) -> QuantizedWeight:
        shape = tuple(weight.shape)
        matrix = weight.reshape(shape[0], -1)
        rows = packed_bytes(matrix.shape[1], self.bits)
        qdata = torch.empty(shape[0], rows, dtype=torch.uint8, device=weight.device)
        for block in row_blocks(matrix):
            values = matrix[block].float() / scale[block]
            qdata[block] = pack(encode(values, self.exponent, self.mantissa), self.bits)
        return QuantizedWeight(self, qdata, scale, None, shape, dtype)

    def dequantize(self, weight: QuantizedWeight, dtype: torch.dtype) -> torch.Tensor:
        k = math.prod(weight.shape[1:])
        out = torch.empty(weight.shape[0], k, dtype=dtype, device=weight.qdata.device)
        table = values_of(self.exponent, self.mantissa)
        for block in row_blocks(out):
            codes = unpack(weight.qdata[block], self.bits, k)
            out[block] = looked_up(codes, table).mul_(weight.scale[block])
        return out.view(weight.shape)

    @property
    def coding(self) -> Coding:
        return Coding(self.bits, "table", "row", table=values_of(self.exponent, self.mantissa))

    def parts(self, shape: tuple[int, ...]) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
        k = math.prod(shape[1:])
        return {
            "qdata": (torch.uint8, (shape[0], packed_bytes(k, self.bits))),
            "scale": (torch.float32, (shape[0], 1)),
        }

    def __str__(self) -> str:
        return f"fp{self.bits}_e{self.exponent}m{self.mantissa} per-row"
