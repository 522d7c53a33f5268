"""bitsandbytes' NF4 and FP4: 4-bit codes into a table of 16 values, in blocks of the flat weight.

A block has a float32 scale: 4.5 bits a weight in blocks of 64. Double quantization stores the
scales, less their mean, in the dynamic 8-bit code in blocks of 256 with a float32 scale each: 4.127
bits. The first of two codes is the high nibble. bitsandbytes reads all of this as its own.

It takes a block's largest magnitude for the scale, and under that scale the codes are its CPU's bit
by bit. Here the scale is searched near it: relative L2 of Gaussian weights 0.0870 where the largest
gives 0.0920 (NF4), 0.1144 for 0.1219 (FP4).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
import torch.nn.functional as F

from ..codes.dynamic_code import DYNAMIC_CODE
from ..codes.level_table import LevelTable
from ..codes.minifloat import looked_up
from ..codes.scale_search import best_scale
from ..kernels import Coding
from .base import (
    Format,
    Grid,
    QuantizedWeight,
    register_format,
    require_finite,
    row_blocks,
    snap_table,
)

# fmt: off
_NF4 = (  # quantiles of a normal distribution (Dettmers et al. 2023, arXiv 2305.14314)
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
    -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
    0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941,
    0.7229568362236023, 1.0,
)
_FP4 = (0.0, 0.0625, 8.0, 12.0, 4.0, 6.0, 2.0, 3.0)
# fmt: on
CODES = {"nf4": _NF4, "fp4": tuple(value / 12 for value in (*_FP4, *(-v for v in _FP4)))}

STRETCHES = {"nf4": (1.0, 0.925, 1.075), "fp4": (1.0, 0.925, 0.85)}
"""The scales that are tried, in units of a block's largest magnitude."""

_BINS = 2048
_SCALES_BLOCK = 256
_SMALLEST_MAXIMUM = 1e-38


@register_format
@dataclass(frozen=True)
class Code4(Format):
    """4-bit codes into a table of 16 values, in blocks of the flattened weight.

    code: "nf4" or "fp4". block_size: how many weights share a scale. double_quant: the scales are
    stored in 8 bits.
    """

    kind: ClassVar[str] = "code4"

    code: str = "nf4"
    block_size: int = 64
    double_quant: bool = False

    def __post_init__(self):
        if self.code not in CODES or self.block_size < 2 or self.block_size % 2:
            raise ValueError(f"No 4-bit code {self.code!r} in blocks of {self.block_size}.")

    def quantize(self, weight: torch.Tensor) -> QuantizedWeight:
        """weight: of any shape."""
        return self.quantize_with(weight, STRETCHES[self.code])

    def quantize_with(self, weight: torch.Tensor, stretches: tuple[float, ...]) -> QuantizedWeight:
        """Quantizes ``weight``; each block takes the scale of least squared error among
        ``stretches`` times its largest magnitude."""
        flat = weight.reshape(-1)
        blocks = F.pad(flat, (0, -len(flat) % self.block_size)).view(-1, self.block_size)
        largest = blocks.abs().amax(dim=1).float()
        require_finite(largest)
        scale = torch.empty_like(largest)
        for rows in row_blocks(blocks):
            values = blocks[rows].float()
            scale[rows] = _searched_scale(values, largest[rows], self.code, stretches)
        parts = {"qdata": self._codes(blocks, scale)[: -(-len(flat) // 2)].clone()}
        parts |= _quantize_scales(scale) if self.double_quant else {"scale": scale}
        return QuantizedWeight.of_parts(self, parts, tuple(weight.shape), weight.dtype)

    def grid(self, weight: torch.Tensor, importance: torch.Tensor | None = None) -> Grid | None:
        n, k = weight.shape
        if k % self.block_size:
            return None
        groups = k // self.block_size
        weights = None if importance is None else importance.sqrt().view(groups, -1)
        scale = torch.empty(n, groups, device=weight.device)
        for rows in row_blocks(weight):
            values = weight[rows].float().view(-1, groups, self.block_size)
            largest = values.abs().amax(dim=-1)
            require_finite(largest)
            scale[rows] = _searched_scale(values, largest, self.code, STRETCHES[self.code], weights)
        parts = {"scale": scale.view(-1)}
        if self.double_quant:
            parts = _quantize_scales(parts["scale"])
        shape = (n, k)
        whole = QuantizedWeight.of_parts(self, {"qdata": None, **parts}, shape, weight.dtype)
        stored = self.scales(whole)

        def store(values: torch.Tensor) -> QuantizedWeight:
            return replace(whole, qdata=self._codes(values.view(-1, self.block_size), stored))

        table = torch.tensor(sorted(set(CODES[self.code])), device=weight.device)
        return Grid(stored.view(n, groups), None, snap_table(table), store)

    def _codes(self, blocks: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        """Of ``blocks`` [blocks, block_size] under ``scale`` [blocks]: packed, flat."""
        qdata = torch.empty(
            len(blocks), self.block_size // 2, dtype=torch.uint8, device=blocks.device
        )
        for rows in row_blocks(blocks):
            inverse = 1.0 / scale[rows, None].clamp(_SMALLEST_MAXIMUM)
            codes = _nearest((blocks[rows].float() * inverse).clamp_(-1, 1), CODES[self.code])
            qdata[rows] = (codes[:, ::2] << 4) | codes[:, 1::2]
        return qdata.view(-1)

    def dequantize(self, weight: QuantizedWeight, dtype: torch.dtype) -> torch.Tensor:
        count = math.prod(weight.shape)
        half = self.block_size // 2
        packed = F.pad(weight.qdata, (0, -len(weight.qdata) % half)).view(-1, half)
        scale = self.scales(weight)
        out = torch.empty(len(packed), self.block_size, dtype=dtype, device=packed.device)
        for rows in row_blocks(out):
            codes = torch.stack((packed[rows] >> 4, packed[rows] & 15), dim=-1).flatten(1)
            out[rows] = looked_up(codes, CODES[self.code]).mul_(scale[rows, None])
        return out.view(-1)[:count].view(weight.shape)

    @property
    def coding(self) -> Coding:
        return Coding(
            4,
            "table",
            "flat",
            self.block_size,
            scale_values="dynamic" if self.double_quant else "float",
            packing="high first",
            table=CODES[self.code],
            scale_table=DYNAMIC_CODE if self.double_quant else (),
        )

    def scales(self, weight: QuantizedWeight) -> torch.Tensor:
        """The scale of each block, float32 [blocks]."""
        if weight.scale_2 is None:
            return weight.scale
        values = looked_up(weight.scale, DYNAMIC_CODE)
        steps = weight.scale_2.repeat_interleave(_SCALES_BLOCK)[: len(values)]
        return values * steps + weight.zero_point

    def in_rows(self, weight: QuantizedWeight) -> QuantizedWeight:
        """Double quantization is undone: the mean of the scales is each tensor's own."""
        n, k = weight.shape
        if k % self.block_size:
            raise ValueError(f"{self} run on over the ends of rows of {k}")
        parts = {"qdata": weight.qdata.view(n, -1), "scale": self.scales(weight).view(n, -1)}
        single = replace(self, double_quant=False)
        return QuantizedWeight.of_parts(single, parts, weight.shape, weight.dtype)

    def parts(self, shape: tuple[int, ...]) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
        count = math.prod(shape)
        blocks = -(-count // self.block_size)
        qdata = {"qdata": (torch.uint8, (-(-count // 2),))}
        if not self.double_quant:
            return {**qdata, "scale": (torch.float32, (blocks,))}
        return {
            **qdata,
            "scale": (torch.uint8, (blocks,)),
            "zero_point": (torch.float32, ()),
            "scale_2": (torch.float32, (-(-blocks // _SCALES_BLOCK),)),
        }

    def __str__(self) -> str:
        double = ", double quantization" if self.double_quant else ""
        return f"{self.code} blocks of {self.block_size}{double}"


def _searched_scale(
    blocks: torch.Tensor,
    largest: torch.Tensor,
    code: str,
    stretches: tuple[float, ...],
    weights: torch.Tensor | None = None,
) -> torch.Tensor:
    """The best scale among ``stretches`` times ``largest``, for each of ``blocks`` [..., size]."""
    table = LevelTable(sorted(set(CODES[code])), 1.0, _BINS, blocks.device)
    return best_scale(blocks, (largest * each for each in stretches), table.snap, weights=weights)


def _quantize_scales(largest: torch.Tensor) -> dict[str, torch.Tensor]:
    """zero_point: the mean of the maxima. scale: codes of the rest. scale_2: float32 a block."""
    mean = largest.mean()
    rest = largest - mean
    blocks = F.pad(rest, (0, -len(rest) % _SCALES_BLOCK)).view(-1, _SCALES_BLOCK)
    steps = blocks.abs().amax(dim=1)
    inverse = 1.0 / steps[:, None].clamp(_SMALLEST_MAXIMUM)
    codes = _nearest((blocks * inverse).clamp_(-1, 1), DYNAMIC_CODE)
    return {"scale": codes.view(-1)[: len(rest)].clone(), "zero_point": mean, "scale_2": steps}


def _nearest(values: torch.Tensor, code: tuple[float, ...]) -> torch.Tensor:
    """The code, uint8, whose value is nearest; of two that are equally near the lower value's."""
    table = torch.tensor(code, dtype=torch.float32, device=values.device)
    order = torch.argsort(table, stable=True)
    ordered = table[order]
    places = torch.bucketize(values.contiguous(), (ordered[:-1] + ordered[1:]) / 2)
    return order.to(torch.uint8)[places]
