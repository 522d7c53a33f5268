"""Quantized models on disk: safetensors, streamed, verified, and never believed unchecked."""

from importlib import import_module

from .gguf import GGUF_SUFFIX, GGUFFile, GGUFTensor
from .header import TensorSpec
from .layers import (
    ENTRIES,
    LAYERS,
    PREFIX,
    StoredLayer,
    find_layers,
    marker_name,
    marker_tensor,
    raw_bytes,
)
from .reader import INDEX_SUFFIX, TensorFile, TensorFiles
from .stock import check_stock_layers
from .writer import refuse_to_replace, write_file

_FOREIGN = ("TORCHAO_NAMES", "ForeignFile", "ForeignLayer", "find_foreign")

__all__ = [
    "ENTRIES",
    "GGUF_SUFFIX",
    "INDEX_SUFFIX",
    "LAYERS",
    "PREFIX",
    "TORCHAO_NAMES",
    "ForeignFile",
    "ForeignLayer",
    "GGUFFile",
    "GGUFTensor",
    "StoredLayer",
    "TensorFile",
    "TensorFiles",
    "TensorSpec",
    "check_stock_layers",
    "find_foreign",
    "find_layers",
    "marker_name",
    "marker_tensor",
    "raw_bytes",
    "refuse_to_replace",
    "write_file",
]


def __getattr__(name: str):
    """Readers of other libraries' files are imported by who reads one."""
    if name not in _FOREIGN:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(".foreign", __name__), name)
