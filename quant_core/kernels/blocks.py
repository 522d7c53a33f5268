"""Splits a matrix into blocks of rows that fit the cache."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

# Elements of a block: 1 MiB of float32 on a CPU. On a GPU 16 MiB, which stays in the cache of those
# that multiply FP8 (RTX 4060: 24 MiB, RTX 4090: 72, H100: 50), and takes longer than a launch does.
_CPU_BLOCK = 256 * 1024
GPU_BLOCK = 4 * 1024 * 1024


# Classes of tensors that are computed with at once.
EAGER = {torch.Tensor, nn.Parameter}


def is_traced(tensor: torch.Tensor) -> bool:
    """Whether torch.compile is tracing. It traces the operations of a tensor subclass with tensors
    that are subclasses too."""
    return torch.compiler.is_compiling() or type(tensor) not in EAGER


def row_blocks(matrix: torch.Tensor) -> Iterator[slice]:
    """Whole rows of a matrix [N, K], block by block.

    A block fits the cache: on a CPU three times as fast as one pass an operation over the whole
    matrix, and nowhere does a float32 copy of it exist. Under torch.compile, which fuses the passes
    and would unroll the loop, there is one block.
    """
    count = len(matrix)
    step = count if is_traced(matrix) else max(1, block_elements(matrix) // matrix.shape[1])
    return (slice(start, start + step) for start in range(0, count, step))


def in_one_block(matrix: torch.Tensor) -> bool:
    """Whether ``row_blocks`` gives no more than one."""
    return is_traced(matrix) or len(matrix) * matrix.shape[1] <= block_elements(matrix)


def block_elements(matrix: torch.Tensor) -> int:
    """The most elements of a block, where a row has fewer."""
    return _CPU_BLOCK if matrix.device.type == "cpu" else GPU_BLOCK
