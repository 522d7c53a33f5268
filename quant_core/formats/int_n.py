"""Integers of 1 to 7 bits in groups along K, packed without gaps: eight codes of b bits in b bytes.

``w = code * scale + zero_point`` with code 0..2^b - 1, scale and zero point bfloat16 per group (see
``affine``). Symmetric groups store no zero point: it is -2^(b - 1) * scale, so that code 2^(b - 1)
is zero. Bits a weight: b + 32 / group affine, b + 16 / group symmetric.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from ..codes.affine import codes_of, group_ranges
from ..codes.bits import pack, packed_bytes, unpack
from ..kernels import Coding
from .base import Format, Grid, QuantizedWeight, register_format, row_blocks, snap_integers


@register_format
@dataclass(frozen=True)
class IntN(Format):
    """Integers of 1 to 7 bits in groups along K.

    bits: 1 to 7. group_size: how many weights along K share a scale. symmetric: no zero point is
    stored. algorithm: one of ``affine.ALGORITHMS``; "hqq" is for affine groups alone.
    """

    kind: ClassVar[str] = "int_n"

    bits: int = 3
    group_size: int = 64
    symmetric: bool = False
    algorithm: str = "search"

    def __post_init__(self):
        if not 1 <= self.bits <= 7 or self.group_size < 1:
            raise ValueError(f"No integers of {self.bits} bits in groups of {self.group_size}.")
        if self.symmetric and (self.bits == 1 or self.algorithm == "hqq"):
            raise ValueError(
                "Symmetric integers have 2 to 7 bits and no zero point for hqq to move. "
                "Choose affine ones."
            )

    @property
    def levels(self) -> int:
        """The largest code."""
        return 2**self.bits - 1

    def quantize(self, weight: torch.Tensor) -> QuantizedWeight:
        """weight: [N, K] with K divisible by ``group_size``."""
        return self.grid(weight).store(weight)

    def grid(self, weight: torch.Tensor, importance: torch.Tensor | None = None) -> Grid | None:
        n, k = weight.shape
        if k % self.group_size:
            return None
        step, zero = group_ranges(
            weight, self.group_size, self.levels, self.algorithm, self.symmetric, importance
        )

        def store(values: torch.Tensor) -> QuantizedWeight:
            size = packed_bytes(k, self.bits)
            qdata = torch.empty(n, size, dtype=torch.uint8, device=values.device)
            for block in row_blocks(values):
                groups = values[block].float().view(-1, k // self.group_size, self.group_size)
                codes = codes_of(groups, step[block, :, None], zero[block, :, None], self.levels)
                qdata[block] = pack(codes.to(torch.uint8).view(-1, k), self.bits)
            parts = {"qdata": qdata, "scale": step.bfloat16()}
            if not self.symmetric:
                parts["zero_point"] = zero.bfloat16()
            return QuantizedWeight.of_parts(self, parts, (n, k), weight.dtype)

        return Grid(step, zero, snap_integers(0, self.levels), store)

    def dequantize(self, weight: QuantizedWeight, dtype: torch.dtype) -> torch.Tensor:
        n, k = weight.shape
        out = torch.empty(n, k, dtype=dtype, device=weight.qdata.device)
        for block in row_blocks(out):
            codes = unpack(weight.qdata[block], self.bits, k)
            codes = codes.view(len(codes), -1, self.group_size).float()
            step = weight.scale[block, :, None].float()
            zero = (
                step * -(2 ** (self.bits - 1))
                if self.symmetric
                else weight.zero_point[block, :, None]
            )
            out[block] = codes.mul_(step).add_(zero).view(len(codes), k)
        return out

    def in_rows(self, weight: QuantizedWeight) -> QuantizedWeight:
        return weight

    @property
    def coding(self) -> Coding:
        zero = "middle" if self.symmetric else "stored"
        return Coding(self.bits, scales="group", group=self.group_size, zero=zero)

    def parts(self, shape: tuple[int, ...]) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
        n, k = shape
        groups = (torch.bfloat16, (n, k // self.group_size))
        zero_point = {} if self.symmetric else {"zero_point": groups}
        return {
            "qdata": (torch.uint8, (n, packed_bytes(k, self.bits))),
            "scale": groups,
            **zero_point,
        }

    def __str__(self) -> str:
        kind = "symmetric " if self.symmetric else ""
        return f"int{self.bits} {kind}groups of {self.group_size}"
