"""How much of a matrix one pass takes."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

# Elements of a block: 1 MiB of float32.
_CPU_BLOCK = 256 * 1024


def is_traced(tensor: torch.Tensor) -> bool:
    """Whether torch.compile traces ``tensor``; the tensors that it traces a subclass with are
    subclasses themselves."""
    return torch.compiler.is_compiling() or type(tensor) not in (torch.Tensor, nn.Parameter)


def row_blocks(matrix: torch.Tensor) -> Iterator[slice]:
    """Slices of whole rows of a matrix [N, K], block by block.

    On a CPU a block fits the cache, which is three times as fast as passing over the whole matrix
    at each operation, and no float32 copy of it ever exists. There is one block on a GPU, and under
    torch.compile, which fuses the passes and would unroll the loop.
    """
    count = len(matrix)
    in_blocks = matrix.device.type == "cpu" and not is_traced(matrix)
    step = max(1, _CPU_BLOCK // matrix.shape[1]) if in_blocks else count
    return (slice(start, start + step) for start in range(0, count, step))


def in_one_block(matrix: torch.Tensor) -> bool:
    """Whether ``row_blocks`` gives at most one slice."""
    return (
        matrix.device.type != "cpu"
        or is_traced(matrix)
        or len(matrix) * matrix.shape[1] <= _CPU_BLOCK
    )
