"""Files that other libraries quantized: recognised by their tensors, read a layer at a time."""

from .find import ForeignFile, find_foreign
from .layer import ForeignLayer
from .torchao import TORCHAO_NAMES

__all__ = ["TORCHAO_NAMES", "ForeignFile", "ForeignLayer", "find_foreign"]
