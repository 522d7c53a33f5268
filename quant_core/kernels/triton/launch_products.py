"""Starts the product of 8-bit codes, in one of several tiles.

Tested by tests/quant_core/kernels/test_triton.py.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from .start import power_of_two, start

# Tensor descriptors are read by hardware of its own from here on; before, they cost more.
_FIRST_DESCRIPTORS = (9, 0)
_ALIGNMENT = 16
# Of a LoRA whose second product is added before the result is written.
MOST_RANKS = 32


@dataclass(frozen=True)
class Tile:
    """What one program of ``product`` computes, and how it is built."""

    rows: int
    columns: int
    along: int = 128
    warps: int = 8
    stages: int = 3

    def __str__(self) -> str:
        return f"{self.rows}x{self.columns}x{self.along}w{self.warps}s{self.stages}"


# By most rows of x: what is tried there, from what is likeliest.
_LARGE, _SQUARE, _TALL = Tile(128, 256), Tile(128, 128), Tile(128, 256, 64)
_MIDDLE, _LOW = Tile(64, 128, warps=4), Tile(64, 64, warps=4, stages=4)
_FLAT, _FLATTEST = Tile(32, 128, warps=4), Tile(16, 128, warps=4, stages=4)
TILES = {
    32: (_FLATTEST, _FLAT, _LOW),
    128: (_LOW, _MIDDLE, _FLAT),
    512: (_MIDDLE, _SQUARE, _LOW),
    None: (_SQUARE, _LARGE, _TALL, _MIDDLE),
}
ALL_TILES = tuple(dict.fromkeys(tile for tiles in TILES.values() for tile in tiles))


def tiles_for(m: int) -> tuple[Tile, ...]:
    """The tiles that may be the quickest for ``m`` rows."""
    return TILES[next((most for most in TILES if most is not None and m <= most), None)]


def product(
    x: torch.Tensor,
    codes: torch.Tensor,
    row_scale: torch.Tensor,
    column_scale: torch.Tensor,
    bias: torch.Tensor | None,
    dtype: torch.dtype,
    low: torch.Tensor | None = None,
    up: torch.Tensor | None = None,
    tile: Tile | None = None,
) -> torch.Tensor:
    """As ``product.product``. low, up: of at most MOST_RANKS. tile: by default the likeliest of its
    size."""
    (m, k), n = x.shape, len(codes)
    tile = tile or tiles_for(m)[0]
    out = torch.empty((m, n), dtype=dtype, device=x.device)
    x, codes = x.contiguous(), codes.contiguous()
    described = takes_descriptors(x, codes)
    left, right = x, codes
    if described:
        from triton.tools.tensor_descriptor import TensorDescriptor

        left = TensorDescriptor(x, [m, k], [k, 1], [tile.rows, tile.along])
        right = TensorDescriptor(codes, [n, k], [k, 1], [tile.columns, tile.along])
    start(
        "product",
        (-(-m // tile.rows) * -(-n // tile.columns),),
        x,
        left,
        right,
        row_scale.contiguous(),
        column_scale.contiguous(),
        out if bias is None else bias.contiguous(),
        out if low is None else low.contiguous(),
        out if up is None else up.contiguous(),
        out,
        m,
        n,
        k,
        0 if up is None else up.shape[1],
        DESCRIBED=described,
        FLOATING=codes.dtype != torch.int8,
        PER_COLUMN=column_scale.numel() > 1,
        HAS_BIAS=bias is not None,
        RANK=0 if up is None else power_of_two(up.shape[1], 16, MOST_RANKS),
        BLOCK_M=tile.rows,
        BLOCK_N=tile.columns,
        BLOCK_K=tile.along,
        BAND=8,
        num_warps=tile.warps,
        num_stages=tile.stages,
    )
    return out


def takes_descriptors(*matrices: torch.Tensor) -> bool:
    """Whether the GPU has tensor descriptors and these contiguous matrices are aligned for them."""
    first = matrices[0]
    if not first.is_cuda or torch.version.hip:
        return False
    if torch.cuda.get_device_capability(first.device) < _FIRST_DESCRIPTORS:
        return False
    return all(
        matrix.data_ptr() % _ALIGNMENT == 0 and matrix.stride(0) % _ALIGNMENT == 0
        for matrix in matrices
    )
