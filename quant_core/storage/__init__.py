"""Quantized models on disk: written a tensor at a time and verified, and read with checks.

Readers of other libraries' files are in ``foreign``, which has to be imported by its own name.
"""

from .checks import raw_bytes
from .gguf_file import GGUF_SUFFIX, GGUFFile, GGUFTensor
from .header import TensorSpec
from .parts import Part, quantized_part, stock_marker, stock_metadata
from .reader import INDEX_SUFFIX, TensorFile, TensorFiles
from .stock import SINCE, STOCK_MARKER, check_stock_layers
from .stored_layer import (
    ENTRIES,
    LAYERS,
    MARKER,
    PREFIX,
    StoredLayer,
    entry,
    find_layers,
    marker_name,
    marker_tensor,
)
from .writer import holds_already, refuse_to_replace, write_file

__all__ = [
    "ENTRIES",
    "GGUF_SUFFIX",
    "INDEX_SUFFIX",
    "LAYERS",
    "MARKER",
    "PREFIX",
    "SINCE",
    "STOCK_MARKER",
    "GGUFFile",
    "GGUFTensor",
    "Part",
    "StoredLayer",
    "TensorFile",
    "TensorFiles",
    "TensorSpec",
    "check_stock_layers",
    "entry",
    "find_layers",
    "holds_already",
    "marker_name",
    "marker_tensor",
    "quantized_part",
    "raw_bytes",
    "refuse_to_replace",
    "stock_marker",
    "stock_metadata",
    "write_file",
]
