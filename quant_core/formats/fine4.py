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

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch

from ..kernels import Coding
from ..kernels.plain import pack_nibbles, unpack_nibbles
from .base import Format, QuantizedWeight, absolute_maximum, register_format, row_blocks
from .grid import Grid
from .minifloat import looked_up
from .scale_search import least

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
"""Finding levels among the midpoints takes most of the time; a fine table does instead, in steps of
an eighth of the narrowest gap or less."""


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
        table = _Table(weight.device)
        scale = torch.empty(
            n, k // self.group_size, dtype=torch.float8_e4m3fn, device=weight.device
        )
        for rows in row_blocks(weight):
            groups = weight[rows].float().contiguous().unflatten(1, (-1, self.group_size))
            scale[rows] = _searched_scale(groups / scale_2, table, weights)
        step = scale.float() * scale_2

        def store(values: torch.Tensor) -> QuantizedWeight:
            qdata = torch.empty(n, k // 2, dtype=torch.uint8, device=values.device)
            for rows in row_blocks(values):
                groups = values[rows].float().contiguous().unflatten(1, (-1, self.group_size))
                qdata[rows] = pack_nibbles(table.codes(_over(groups, step[rows])).flatten(1))
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


class _Table:
    """The nearest level of float32 values in steps."""

    def __init__(self, device: torch.device):
        levels = torch.tensor(LEVELS, device=device)
        grid = torch.linspace(-_SPAN, _SPAN, 2 * _BINS + 1, device=device)
        places = torch.bucketize(grid, (levels[:-1] + levels[1:]) / 2)
        self._codes, self._levels = places.to(torch.uint8), levels[places]

    def snap(self, values: torch.Tensor) -> torch.Tensor:
        return self._levels.index_select(0, _bins(values).view(-1)).view_as(values)

    def codes(self, values: torch.Tensor) -> torch.Tensor:
        return self._codes.index_select(0, _bins(values).view(-1)).view_as(values)


def _bins(values: torch.Tensor) -> torch.Tensor:
    return values.mul(_BINS / _SPAN).add_(_BINS).round_().clamp_(0, 2 * _BINS).int()


def _over(groups: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
    """``groups`` in their steps; a group of a step of zero is nothing but zeros."""
    return groups * torch.where(step == 0, 0.0, step.reciprocal()).unsqueeze(-1)


def _searched_scale(
    groups: torch.Tensor, table: _Table, weights: torch.Tensor | None
) -> torch.Tensor:
    """The scale of least squared error of each of ``groups`` [N, groups, group_size], which are in
    units of the tensor's: float32 values that E4M3 holds. weights: what each value's error is
    multiplied by."""
    largest = groups.abs().amax(-1)

    def candidates() -> Iterator[tuple[torch.Tensor, ...]]:
        for stretch in (sign * each for each in STRETCHES for sign in (1, -1)):
            scale = (largest * stretch).to(torch.float8_e4m3fn).float()
            scaled = _over(groups, scale)
            error = table.snap(scaled).sub_(scaled)
            if weights is not None:
                error.mul_(weights)
            error = torch.linalg.vector_norm(error, dim=-1).mul_(scale.abs())
            # Under a scale of zero the error is zero in steps, but the whole weight is lost.
            yield error.masked_fill_(scale == 0, math.nan), scale

    return least(candidates())[0]
