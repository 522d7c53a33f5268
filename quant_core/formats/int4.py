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

from ..kernels import dequantize_int4, int4_linear
from ..kernels.plain import pack_nibbles
from .affine import choose_range, codes_of
from .base import Format, QuantizedWeight, register_format, row_blocks

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
        n, k = weight.shape
        groups = k // self.group_size
        qdata = torch.empty(n, k // 2, dtype=torch.uint8, device=weight.device)
        scale = torch.empty(n, groups, dtype=torch.bfloat16, device=weight.device)
        zero_point = torch.empty_like(scale)
        for block in row_blocks(weight):
            values = weight[block].float().view(-1, groups, self.group_size)
            step, zero = choose_range(values, _LEVELS, self.algorithm)
            codes = codes_of(values, step, zero, _LEVELS).to(torch.uint8).view(-1, k)
            qdata[block] = pack_nibbles(codes)
            scale[block], zero_point[block] = step.squeeze(-1), zero.squeeze(-1)
        return QuantizedWeight(self, qdata, scale, zero_point, (n, k), weight.dtype)

    def dequantize(self, weight: QuantizedWeight, dtype: torch.dtype) -> torch.Tensor:
        parts = (weight.qdata, weight.scale, weight.zero_point)
        return dequantize_int4(*parts, self.group_size, dtype)

    def linear(
        self, x: torch.Tensor, weight: QuantizedWeight, bias: torch.Tensor | None
    ) -> torch.Tensor:
        parts = (weight.qdata, weight.scale, weight.zero_point)
        return int4_linear(x, *parts, self.group_size, bias)

    def with_algorithm(self, algorithm: str) -> Format:
        return replace(self, algorithm=algorithm)

    def in_rows(self, weight: QuantizedWeight) -> QuantizedWeight:
        return weight

    def nbytes(self, shape: tuple[int, ...]) -> int:
        weights = math.prod(shape)
        return weights // 2 + 2 * 2 * (weights // self.group_size)

    def __str__(self) -> str:
        return f"int4 groups of {self.group_size}"
