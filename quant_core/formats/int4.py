"""INT4 weights in groups along K, affine, two codes to a byte.

``w = code * scale + zero_point`` with code 0..15, scale and zero_point bfloat16 per group; the zero
point is the value of code 0, in weight units. Codes are chosen against the *stored* scale and zero
point, so their rounding to bfloat16 costs nothing (relative L2 0.0998 either way at group 128).

The range of a group is found as ``affine`` has it: searched, its error is 0.0945 where the extremes
give 0.0998 (Gaussian, group 128).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import torch

from ..codes.affine import codes_of, group_ranges
from ..kernels import Coding
from ..kernels.plain import dequantize_int4, pack_nibbles
from .base import Format, Grid, QuantizedWeight, register_format, row_blocks, snap_integers

GROUP_SIZES = (128, 64, 32)

_LEVELS = 15


@register_format
@dataclass(frozen=True)
class Int4(Format):
    """INT4 weights in groups along K, affine, two codes to a byte.

    group_size: how many weights along K share a scale. algorithm: how the range of a group is
    found, one of ``affine.ALGORITHMS``.
    """

    kind: ClassVar[str] = "int4"

    group_size: int = 128
    algorithm: str = "search"

    def quantize(self, weight: torch.Tensor) -> QuantizedWeight:
        """weight: [N, K] with K divisible by ``group_size``.

        Stored: qdata uint8 [N, K / 2], low nibble first; scale, zero_point bfloat16 [N, K / group].
        """
        return self.grid(weight).store(weight)

    def grid(self, weight: torch.Tensor, importance: torch.Tensor | None = None) -> Grid | None:
        n, k = weight.shape
        if k % self.group_size:
            return None
        step, zero = group_ranges(
            weight, self.group_size, _LEVELS, self.algorithm, importance=importance
        )

        def store(values: torch.Tensor) -> QuantizedWeight:
            qdata = torch.empty(n, k // 2, dtype=torch.uint8, device=values.device)
            for block in row_blocks(values):
                groups = values[block].float().view(-1, k // self.group_size, self.group_size)
                codes = codes_of(groups, step[block, :, None], zero[block, :, None], _LEVELS)
                qdata[block] = pack_nibbles(codes.to(torch.uint8).view(-1, k))
            stored = (step.bfloat16(), zero.bfloat16())
            return QuantizedWeight(self, qdata, *stored, (n, k), weight.dtype)

        return Grid(step, zero, snap_integers(0, _LEVELS), store)

    def dequantize(self, weight: QuantizedWeight, dtype: torch.dtype) -> torch.Tensor:
        parts = (weight.qdata, weight.scale, weight.zero_point)
        return dequantize_int4(*parts, self.group_size, dtype)

    @property
    def coding(self) -> Coding:
        return Coding(4, scales="group", group=self.group_size, zero="stored")

    def with_algorithm(self, algorithm: str) -> Format:
        return replace(self, algorithm=algorithm)

    def in_rows(self, weight: QuantizedWeight) -> QuantizedWeight:
        return weight

    def nbytes(self, shape: tuple[int, ...]) -> int:
        weights = math.prod(shape)
        return weights // 2 + 2 * 2 * (weights // self.group_size)

    def __str__(self) -> str:
        return f"int4 groups of {self.group_size}"
