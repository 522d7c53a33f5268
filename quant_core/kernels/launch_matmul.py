"""Starts the Triton kernels that multiply: the same arguments and results as their twins."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from .launch import as_stored, on_device_of

# Rows of x that a kernel for few rows takes: one tile of the tensor cores.
FEW_ROWS = 16
# Tensor descriptors are read by hardware of its own from here on; before, they cost more.
_FIRST_DESCRIPTORS = (9, 0)
_ALIGNMENT = 16


@dataclass(frozen=True)
class Tile:
    """The size of the part of the result that one program of ``int8_product`` computes, and how it
    is compiled."""

    rows: int
    columns: int
    along: int = 128
    warps: int = 8
    stages: int = 3


TILES = (Tile(128, 256), Tile(128, 128))
# Which of them a GPU is quickest with, by device; None: quicker without this kernel.
CHOSEN_TILES: dict[torch.device, Tile | None] = {}


def _kernels():
    from . import triton_matmuls

    return triton_matmuls


def int4_linear(
    x: torch.Tensor,
    codes: torch.Tensor,
    scale: torch.Tensor,
    zero_point: torch.Tensor,
    group_size: int,
    bias: torch.Tensor | None,
) -> torch.Tensor:
    """As ``plain.int4_linear``, for x [M, K] with M up to FEW_ROWS."""
    m, n = len(x), len(codes)
    out = torch.empty((m, n), dtype=x.dtype, device=x.device)
    columns = 16 if n <= 4096 else 32
    with on_device_of(x):
        _kernels().int4_linear[(-(-n // columns),)](
            x.contiguous(),
            codes.contiguous(),
            scale.contiguous(),
            zero_point.contiguous(),
            out if bias is None else bias.contiguous(),
            out,
            m,
            n,
            codes.shape[1],
            GROUPS=scale.shape[1],
            HALF_GROUP=group_size // 2,
            HAS_BIAS=bias is not None,
            BLOCK_M=FEW_ROWS,
            BLOCK_N=columns,
        )
    return out


def scaled_linear(
    x: torch.Tensor, codes: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor | None
) -> torch.Tensor:
    """As ``plain.scaled_linear``, for x [M, K] with M up to FEW_ROWS and codes [N, K]."""
    (m, k), n = x.shape, len(codes)
    out = torch.empty((m, n), dtype=x.dtype, device=x.device)
    stored, layout = as_stored(codes.contiguous())
    with on_device_of(x):
        _kernels().scaled_linear[(-(-n // 16),)](
            x.contiguous(),
            stored,
            scale.contiguous(),
            out if bias is None else bias.contiguous(),
            out,
            m,
            n,
            k,
            **layout,
            PER_ROW=scale.dim() > 0,
            HAS_BIAS=bias is not None,
            BLOCK_M=FEW_ROWS,
            BLOCK_N=16,
            BLOCK_K=128 if x.dtype == torch.float32 else 256,
        )
    return out


def int8_product(
    x: torch.Tensor,
    codes: torch.Tensor,
    row_scale: torch.Tensor,
    column_scale: torch.Tensor,
    bias: torch.Tensor | None,
    dtype: torch.dtype,
    tile: Tile | None = None,
) -> torch.Tensor:
    """As ``plain.int8_product``. tile: the one chosen for the device by default."""
    tile = tile or CHOSEN_TILES.get(x.device) or TILES[-1]
    m, k = x.shape
    n = len(codes)
    out = torch.empty((m, n), dtype=dtype, device=x.device)
    x, codes = x.contiguous(), codes.contiguous()
    described = _takes_descriptors(x, codes)
    left, right = x, codes
    if described:
        from triton.tools.tensor_descriptor import TensorDescriptor

        left = TensorDescriptor(x, [m, k], [k, 1], [tile.rows, tile.along])
        right = TensorDescriptor(codes, [n, k], [k, 1], [tile.columns, tile.along])
    with on_device_of(x):
        _kernels().int8_product[(-(-m // tile.rows) * -(-n // tile.columns),)](
            left,
            right,
            row_scale.contiguous(),
            column_scale.contiguous(),
            out if bias is None else bias.contiguous(),
            out,
            m,
            n,
            k,
            DESCRIBED=described,
            PER_COLUMN=column_scale.numel() > 1,
            HAS_BIAS=bias is not None,
            BLOCK_M=tile.rows,
            BLOCK_N=tile.columns,
            BLOCK_K=tile.along,
            BAND=8,
            num_warps=tile.warps,
            num_stages=tile.stages,
        )
    return out


def _takes_descriptors(*matrices: torch.Tensor) -> bool:
    first = matrices[0]
    if not first.is_cuda or torch.version.hip:
        return False
    aligned = all(
        matrix.data_ptr() % _ALIGNMENT == 0 and matrix.stride(0) % _ALIGNMENT == 0
        for matrix in matrices
    )
    return aligned and torch.cuda.get_device_capability(first.device) >= _FIRST_DESCRIPTORS
