"""What every format derives from and works with; the formats themselves are the files above.

``Format`` is the arithmetic of one stored weight: quantize, dequantize, linear. It knows nothing of
carriers. The same format stands behind a torchao tensor on a plain module and behind a
``QuantizedTensor`` in a ComfyUI model; both give it a ``QuantizedWeight``.
"""

from ...codes.extremes import absolute_maximum, require_finite
from ...kernels.blocks import row_blocks
from .format import FORMATS, WEIGHT_ONLY, Format, format_from_dict, register_format
from .grid import Grid, snap_float8, snap_integers, snap_table
from .quantized_weight import OPTIONAL_PARTS, PARTS, REQUIRED_PARTS, QuantizedWeight
from .scale_shapes import scale_shape, torchao_scale
from .stack_rows import stack_rows, take_swizzled_rows

__all__ = [
    "FORMATS",
    "OPTIONAL_PARTS",
    "PARTS",
    "REQUIRED_PARTS",
    "WEIGHT_ONLY",
    "Format",
    "Grid",
    "QuantizedWeight",
    "absolute_maximum",
    "format_from_dict",
    "register_format",
    "require_finite",
    "row_blocks",
    "scale_shape",
    "snap_float8",
    "snap_integers",
    "snap_table",
    "stack_rows",
    "take_swizzled_rows",
    "torchao_scale",
]
