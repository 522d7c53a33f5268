"""Where NVIDIA's tensor cores look for block scales.

Tiles of 128 x 4 scales, each stored as 32 x 4 x 4: row r of a tile stands at [r % 32, r // 32]. See
"1D Block Scaling Factors Layout" in the cuBLAS documentation. Rows are padded to 128, columns to 4.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from .base import QuantizedWeight

_ROWS, _COLUMNS = 128, 4
_BLACKWELL = (10, 0)


def multiplies_blocks(device: torch.device) -> bool:
    """Whether ``device`` has those tensor cores: NVIDIA from Blackwell on."""
    if device.type != "cuda" or torch.version.hip or not torch.cuda.is_available():
        return False
    return torch.cuda.get_device_capability(device) >= _BLACKWELL


def padded_to(size: int, multiple: int) -> int:
    """The least multiple of ``multiple`` that is at least ``size``."""
    return -(-size // multiple) * multiple


def swizzled_shape(rows: int, columns: int) -> tuple[int, int]:
    """The padded shape of swizzled scales."""
    return padded_to(rows, _ROWS), padded_to(columns, _COLUMNS)


def swizzle(scales: torch.Tensor) -> torch.Tensor:
    """Reorders scales [H, W] of a one-byte dtype for tensor cores: [swizzled_shape(H, W)], padded
    with zero bytes."""
    rows, columns = scales.shape
    high, wide = swizzled_shape(rows, columns)
    octets = F.pad(scales.view(torch.uint8), (0, wide - columns, 0, high - rows))
    tiles = octets.view(high // _ROWS, 4, 32, wide // _COLUMNS, _COLUMNS)
    return tiles.permute(0, 3, 2, 1, 4).reshape(high, wide).view(scales.dtype)


def unswizzle(swizzled: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    """The inverse of ``swizzle``: the scales [rows, columns]."""
    high, wide = swizzled_shape(rows, columns)
    tiles = swizzled.view(torch.uint8).view(high // _ROWS, wide // _COLUMNS, 32, 4, _COLUMNS)
    octets = tiles.permute(0, 3, 2, 1, 4).reshape(high, wide)
    return octets[:rows, :columns].contiguous().view(swizzled.dtype)


def take_swizzled_rows(
    weight: QuantizedWeight, rows: slice, columns: int, multiple: int
) -> QuantizedWeight:
    """Some rows of a weight whose block scales are swizzled, [H, columns] before that.

    multiple: of rows, that the codes are padded to. ValueError where ``rows`` do not fit.
    """
    if rows.start % multiple or rows.stop % multiple:
        raise ValueError(f"rows {rows.start} to {rows.stop} are not in groups of {multiple}")
    scale = unswizzle(weight.scale, weight.qdata.shape[0], columns)[rows]
    return replace(
        weight,
        qdata=weight.qdata[rows].clone(),
        scale=swizzle(scale),
        shape=(rows.stop - rows.start, *weight.shape[1:]),
    )
