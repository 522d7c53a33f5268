"""Formats: how one weight is stored and multiplied. One format a file; importing registers it."""

from .base import FORMATS, Format, QuantizedWeight, format_from_dict
from .block_float8 import BlockFloat8
from .cast_float8 import CastFloat8
from .code4 import Code4
from .fine4 import Fine4
from .float8 import Float8
from .float_x import FloatX
from .int4 import Int4
from .int4_dynamic import Int4Dynamic
from .int8 import Int8
from .int8_convrot import Int8ConvRot
from .int_n import IntN
from .llm_int8 import LlmInt8
from .mxfp8 import MXFP8
from .nvfp4 import NVFP4
from .rotated_groups import W4A8, W6A8, RotatedGroups
from .smoothed_nvfp4 import SmoothedNVFP4
from .static_float8 import StaticFloat8
from .svdquant import SvdQuant

__all__ = [
    "FORMATS",
    "MXFP8",
    "NVFP4",
    "W4A8",
    "W6A8",
    "BlockFloat8",
    "CastFloat8",
    "Code4",
    "Fine4",
    "Float8",
    "FloatX",
    "Format",
    "Int4",
    "Int4Dynamic",
    "Int8",
    "Int8ConvRot",
    "IntN",
    "LlmInt8",
    "QuantizedWeight",
    "RotatedGroups",
    "SmoothedNVFP4",
    "StaticFloat8",
    "SvdQuant",
    "format_from_dict",
]
