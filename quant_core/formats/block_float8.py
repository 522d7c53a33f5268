"""FP8 weights with one float32 scale for each block of 128 x 128, as DeepSeek and vLLM store them.

``w = code * scale``; vLLM calls that scale ``weight_scale_inv``. Edge blocks are smaller. Bits a
weight: 8.002. Activations are not rounded: ``linear`` computes in the dtype of its input.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

import torch
import torch.nn.functional as F

from ..kernels import Coding
from .base import (
    Format,
    Grid,
    QuantizedWeight,
    register_format,
    require_finite,
    row_blocks,
    snap_float8,
)

_SMALLEST_MAXIMUM = 1e-30


@register_format
@dataclass(frozen=True)
class BlockFloat8(Format):
    """FP8 weights with one float32 scale for each block.

    dtype: "float8_e4m3fn" or "float8_e5m2". rows, columns: the size of a block.
    """

    kind: ClassVar[str] = "block_float8"

    dtype: str = "float8_e4m3fn"
    rows: int = 128
    columns: int = 128

    def __post_init__(self):
        if self.dtype not in ("float8_e4m3fn", "float8_e5m2") or min(self.rows, self.columns) < 1:
            raise ValueError(f"No {self.dtype} in blocks of {self.rows} x {self.columns}.")

    @property
    def storage(self) -> torch.dtype:
        """The torch dtype of the codes."""
        return getattr(torch, self.dtype)

    def quantize(self, weight: torch.Tensor) -> QuantizedWeight:
        """weight: [N, K]."""
        return self._store(weight, self._scale(weight), weight.dtype)

    def grid(self, weight: torch.Tensor, importance: torch.Tensor | None = None) -> Grid | None:
        if weight.shape[1] % self.columns:
            return None
        scale = self._scale(weight)
        step = scale.repeat_interleave(self.rows, dim=0)[: len(weight)]
        store = partial(self._store, scale=scale, dtype=weight.dtype)
        return Grid(step, None, snap_float8(self.storage), store)

    def _scale(self, weight: torch.Tensor) -> torch.Tensor:
        largest = self._maxima(weight)
        require_finite(largest)
        return largest.float().clamp_(_SMALLEST_MAXIMUM) / torch.finfo(self.storage).max

    def _store(
        self, weight: torch.Tensor, scale: torch.Tensor, dtype: torch.dtype
    ) -> QuantizedWeight:
        limit = torch.finfo(self.storage).max
        qdata = torch.empty(weight.shape, dtype=self.storage, device=weight.device)
        for block in row_blocks(weight):
            step = self._spread(scale, block, *weight.shape)
            qdata[block] = (weight[block].float() / step).clamp_(-limit, limit)
        return QuantizedWeight(self, qdata, scale, None, tuple(weight.shape), dtype)

    def dequantize(self, weight: QuantizedWeight, dtype: torch.dtype) -> torch.Tensor:
        out = torch.empty(weight.shape, dtype=dtype, device=weight.qdata.device)
        for block in row_blocks(out):
            step = self._spread(weight.scale, block, *weight.shape)
            out[block] = weight.qdata[block].float().mul_(step)
        return out

    @property
    def coding(self) -> Coding:
        values = "e4m3" if self.storage == torch.float8_e4m3fn else "e5m2"
        return Coding(8, values, "square", self.columns, self.rows)

    def _maxima(self, weight: torch.Tensor) -> torch.Tensor:
        """max |w| of each block."""
        n, k = weight.shape
        padded = F.pad(weight.abs(), (0, -k % self.columns, 0, -n % self.rows))
        blocks = padded.unflatten(1, (-1, self.columns)).unflatten(0, (-1, self.rows))
        return blocks.amax(dim=(1, 3))

    def _spread(self, scale: torch.Tensor, rows: slice, n: int, k: int) -> torch.Tensor:
        """The scale of every weight of ``rows``."""
        places = torch.arange(n, device=scale.device)[rows] // self.rows
        return scale[places].repeat_interleave(self.columns, dim=1)[:, :k]

    def in_rows(self, weight: QuantizedWeight) -> QuantizedWeight:
        scale = weight.scale.repeat_interleave(self.rows, dim=0)[: weight.shape[0]]
        return replace(weight, format=replace(self, rows=1), scale=scale)

    def parts(self, shape: tuple[int, ...]) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
        n, k = shape
        blocks = (-(-n // self.rows), -(-k // self.columns))
        return {"qdata": (self.storage, (n, k)), "scale": (torch.float32, blocks)}

    def __str__(self) -> str:
        return f"{self.dtype} blocks of {self.rows} x {self.columns}"
