"""Where NVIDIA's tensor cores look for block scales.

Tiles of 128 x 4 scales, each stored as 32 x 4 x 4: row r of a tile stands at [r % 32, r // 32]. See
"1D Block Scaling Factors Layout" in the cuBLAS documentation. Rows are padded to 128, columns to 4.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

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


def pad_both(matrix: torch.Tensor, multiple: int) -> torch.Tensor:
    """``matrix`` [N, K] with zeros to a multiple of rows and of columns."""
    n, k = matrix.shape
    return F.pad(matrix, (0, padded_to(k, multiple) - k, 0, padded_to(n, multiple) - n))


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
