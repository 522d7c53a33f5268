"""Finds Triton's kernels, and starts them on the right GPU.

Tested by tests/quant_core/kernels/test_triton.py.
"""

from __future__ import annotations

from contextlib import nullcontext
from importlib.util import find_spec

import torch

_HAS_TRITON = find_spec("triton") is not None


def has_triton() -> bool:
    """Whether Triton is installed; ``dispatch.triton_works`` says whether it runs."""
    return _HAS_TRITON


def kernel_named(name: str):
    """The kernel. Importing Triton takes a second, so it is not imported before this call."""
    from . import decode, products, rows

    return next(getattr(room, name) for room in (rows, decode, products) if hasattr(room, name))


def start(name: str, grid: tuple[int, ...], x: torch.Tensor, *arguments, **constants) -> None:
    """Start a kernel with ``arguments``, on the current stream of x's GPU. Triton by itself takes
    the current GPU, whatever GPU its tensors are on."""
    with torch.cuda.device(x.device) if x.is_cuda else nullcontext():
        kernel_named(name)[grid](*arguments, **constants)


def power_of_two(size: int, least: int, most: int) -> int:
    """The smallest power of two from ``size`` on, but not below ``least`` nor above ``most``."""
    return min(most, max(least, 1 << (size - 1).bit_length()))
