"""Formats: how one weight is stored and multiplied. One format a file; importing registers it."""

from .base import FORMATS, Format, QuantizedWeight, format_from_dict
from .cast_float8 import CastFloat8
from .float8 import Float8
from .int4 import Int4
from .int8 import Int8

__all__ = [
    "FORMATS",
    "CastFloat8",
    "Float8",
    "Format",
    "Int4",
    "Int8",
    "QuantizedWeight",
    "format_from_dict",
]
