"""4-bit codes in small groups, each with an E4M3 scale whose sign is used too.

``w = level[code] * scale * scale_2`` with scale E4M3 a group along K, scale_2 float32 a tensor; two
codes a byte, the first in the low nibble. Bits a weight: 4.25 in groups of 32, 4.5 in groups of 16.

The levels are not symmetric: a group has its largest weight on one side, and a negative scale turns
the levels to it. They are the centroids (Lloyd-Max) of groups of Gaussian and of Student t weights,
8 degrees of freedom, under the scales that are searched here. Relative L2 of Gaussian weights:
0.0762 in groups of 32, where NF4's levels and positive scales give 0.0821 at the same bytes, and
INT4 in groups of 128 gives 0.0945.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch

from ..codes.level_table import LevelTable
from ..codes.minifloat import looked_up
from ..codes.scale_search import best_scale, reciprocal
from ..kernels import Coding
from ..kernels.plain import pack_nibbles, unpack_nibbles
from .base import Format, Grid, QuantizedWeight, absolute_maximum, register_format, row_blocks

# fmt: off
LEVELS = (
    -1.06337, -0.832235, -0.648833, -0.505366, -0.38089, -0.269872, -0.167784, -0.0730955,
    0.0164292, 0.104328, 0.19485, 0.292392, 0.402474, 0.530162, 0.681635, 0.890145,
)
# fmt: on
GROUP_SIZES = (32, 16)
STRETCHES = (1.0, 0.92, 1.08, 1.2)
"""Of a group's largest magnitude: the scales that are tried, each with both signs."""
_LARGEST_SCALE = 448.0
_SMALLEST_MAXIMUM = 1e-30
_BINS, _SPAN = 2048, 1.0625
"""Of the table that finds levels: in steps of an eighth of the narrowest gap or less."""


@register_format
@dataclass(frozen=True)
class Fine4(Format):
    """group_size: weights along K that share a scale, an even number."""

    kind: ClassVar[str] = "fine4"

    group_size: int = 32

    def __post_init__(self):
        if self.group_size < 2 or self.group_size % 2:
            raise ValueError(f"No groups of {self.group_size}: use an even number, such as 32.")

    def quantize(self, weight: torch.Tensor) -> QuantizedWeight:
        """weight: [N, K] with K divisible by ``group_size``.

        Stored: qdata uint8 [N, K / 2]; scale float8_e4m3fn [N, K / group_size]; scale_2 float32 [].
        """
        return self.grid(weight).store(weight)

    def grid(self, weight: torch.Tensor, importance: torch.Tensor | None = None) -> Grid | None:
        n, k = weight.shape
        if k % self.group_size:
            return None
        largest = absolute_maximum(weight, "per-tensor").clamp_(_SMALLEST_MAXIMUM)
        scale_2 = largest * (max(STRETCHES) / _LARGEST_SCALE)
        weights = None if importance is None else importance.sqrt().view(-1, self.group_size)
        table = LevelTable(LEVELS, _SPAN, _BINS, weight.device)
        scale = torch.empty(
            n, k // self.group_size, dtype=torch.float8_e4m3fn, device=weight.device
        )
        for rows in row_blocks(weight):
            groups = weight[rows].float().contiguous().unflatten(1, (-1, self.group_size))
            groups = groups / scale_2
            scales = _scales(groups.abs().amax(-1))
            scale[rows] = best_scale(groups, scales, table.snap, weights=weights)
        step = scale.float() * scale_2

        def store(values: torch.Tensor) -> QuantizedWeight:
            qdata = torch.empty(n, k // 2, dtype=torch.uint8, device=values.device)
            for rows in row_blocks(values):
                groups = values[rows].float().contiguous().unflatten(1, (-1, self.group_size))
                in_steps = groups * reciprocal(step[rows]).unsqueeze(-1)
                qdata[rows] = pack_nibbles(table.places(in_steps).flatten(1))
            parts = {"qdata": qdata, "scale": scale, "scale_2": scale_2}
            return QuantizedWeight.of_parts(self, parts, (n, k), values.dtype)

        return Grid(step, None, table.snap, store)

    def dequantize(self, weight: QuantizedWeight, dtype: torch.dtype) -> torch.Tensor:
        n, k = weight.shape
        out = torch.empty(n, k, dtype=dtype, device=weight.qdata.device)
        for rows in row_blocks(out):
            values = looked_up(unpack_nibbles(weight.qdata[rows]), LEVELS)
            step = (weight.scale[rows].float() * weight.scale_2).unsqueeze(-1)
            out[rows] = values.unflatten(1, (-1, self.group_size)).mul_(step).flatten(1)
        return out

    @property
    def coding(self) -> Coding:
        return Coding(4, "table", "group", self.group_size, scale_values="e4m3", table=LEVELS)

    def parts(self, shape: tuple[int, ...]) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
        n, k = shape
        return {
            "qdata": (torch.uint8, (n, k // 2)),
            "scale": (torch.float8_e4m3fn, (n, k // self.group_size)),
            "scale_2": (torch.float32, ()),
        }

    def __str__(self) -> str:
        return f"fine 4-bit groups of {self.group_size}"


def _scales(largest: torch.Tensor) -> Iterator[torch.Tensor]:
    """The scales to try for groups whose largest magnitudes are ``largest``: float32 that E4M3
    holds."""
    for stretch in (sign * each for each in STRETCHES for sign in (1, -1)):
        yield (largest * stretch).to(torch.float8_e4m3fn).float()
