"""The arithmetic that runs at every sampling step, each piece as one kernel if Triton is installed.

Every kernel has a twin in plain PyTorch, which is its reference. The twin runs where the kernel
cannot, in blocks that fit the cache, and under torch.compile, which fuses it. ``triton`` holds the
kernels, ``coding`` says what they need to know of a format, ``product`` and ``weight_only`` choose.
"""

from .blocks import is_traced, row_blocks
from .coding import Coding
from .dispatch import quantize_rows
from .matmul import eight_bit_linear
from .weight_only import add_low_rank, decoded, stored_linear

__all__ = [
    "Coding",
    "add_low_rank",
    "decoded",
    "eight_bit_linear",
    "is_traced",
    "quantize_rows",
    "row_blocks",
    "stored_linear",
]
