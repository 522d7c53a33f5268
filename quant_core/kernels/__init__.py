"""The arithmetic that runs at every step, each piece as one kernel where Triton is there.

Every kernel has a twin in plain PyTorch, which is its reference and runs wherever it does not:
on a CPU in blocks that fit the cache, and under torch.compile, which fuses it.
"""

from .blocks import is_traced, row_blocks
from .dispatch import (
    dequantize_int4,
    dequantize_scaled,
    int4_linear,
    quantize_rows,
    scale_products,
    scaled_linear,
)
from .matmul import float8_linear, int8_linear

__all__ = [
    "dequantize_int4",
    "dequantize_scaled",
    "float8_linear",
    "int4_linear",
    "int8_linear",
    "is_traced",
    "quantize_rows",
    "row_blocks",
    "scale_products",
    "scaled_linear",
]
