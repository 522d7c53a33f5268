"""Rotation of groups along K by a regular Hadamard matrix, which spreads outliers over the group.

The matrix is the Kronecker power of the 4 x 4 one with three times 1 and once -1 in each row and
column, divided by the root of its size (ConvRot; comfy-kitchen's kernels rotate by the same one).
It is symmetric and orthogonal, so rotating twice gives back what was there, and ``x @ W.T`` does
not change where both are rotated.
"""

from __future__ import annotations

from functools import lru_cache

import torch

from ..kernels.blocks import is_traced

SIZES = (256, 64, 16, 4)
"""The sizes that a layer is given, by preference; any power of 4 can be stored."""


def is_size(size: int) -> bool:
    """Whether ``size`` is a power of 4, and not 1."""
    return size >= 4 and size & (size - 1) == 0 and size.bit_length() % 2 == 1


def rotation_size(k: int, sizes: tuple[int, ...] = SIZES) -> int | None:
    """The first of ``sizes`` that divides ``k``; None where none does."""
    return next((size for size in sizes if k % size == 0), None)


def rotate(values: torch.Tensor, size: int) -> torch.Tensor:
    """``values`` [..., K] with each ``size`` of the last dimension rotated, in their own dtype."""
    matrix = (_new_matrix if is_traced(values) else _kept_matrix)(size, values.device, values.dtype)
    return (values.unflatten(-1, (-1, size)) @ matrix).flatten(-2)


def _new_matrix(size: int, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    four = 1 - 2 * torch.eye(4, dtype=torch.float32, device=device).flip(0)
    matrix = four
    while len(matrix) < size:
        matrix = torch.kron(matrix, four)
    return (matrix / size**0.5).to(dtype)


@lru_cache
def _kept_matrix(size: int, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    """The matrix, made once, because every layer uses it at every step."""
    with torch.inference_mode(False):
        return _new_matrix(size, device, dtype)
