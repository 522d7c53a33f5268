"""Integers of 1 to 7 bits in groups along K, packed without gaps: eight codes of b bits in b bytes.

``w = code * scale + zero_point`` with code 0..2^b - 1, scale and zero point bfloat16 per group (see
``affine``). Symmetric groups store no zero point: it is -2^(b - 1) * scale, so that code 2^(b - 1)
is zero. Bits a weight: b + 32 / group affine, b + 16 / group symmetric.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from .affine import choose_range, codes_of
from .base import Format, QuantizedWeight, register_format, row_blocks
from .bits import pack, packed_bytes, unpack


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
        shape = tuple(weight.shape)
        k = shape[1]
        parts = {
            name: torch.empty(size, dtype=dtype, device=weight.device)
            for name, (dtype, size) in self.parts(shape).items()
        }
        for block in row_blocks(weight):
            values = weight[block].float().view(-1, k // self.group_size, self.group_size)
            step, zero = choose_range(values, self.levels, self.algorithm, self.symmetric)
            codes = codes_of(values, step, zero, self.levels).to(torch.uint8)
            parts["qdata"][block] = pack(codes.view(-1, k), self.bits)
            parts["scale"][block] = step.squeeze(-1)
            if not self.symmetric:
                parts["zero_point"][block] = zero.squeeze(-1)
        return QuantizedWeight.of_parts(self, parts, shape, weight.dtype)

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
