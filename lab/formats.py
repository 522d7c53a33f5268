"""Every stored format, for the tests that ask the same of all: what it costs and what it loses.

The figures are of Gaussian weights, 1024 x 3072; docs/numerics.md tells them, and
tests/quant_core/formats/test_errors.py holds the formats to them.
"""

from __future__ import annotations

from dataclasses import dataclass

from .pack import load_pack

load_pack()

from graphquant.quant_core.formats import (  # noqa: E402
    MXFP8,
    NVFP4,
    W4A8,
    W6A8,
    BlockFloat8,
    Code4,
    Fine4,
    Float8,
    FloatX,
    Format,
    Int4,
    Int4Dynamic,
    Int8,
    Int8ConvRot,
    IntN,
    LlmInt8,
    SmoothedNVFP4,
    SvdQuant,
)
from graphquant.quant_core.formats.rotated_groups import rotated_groups  # noqa: E402


@dataclass(frozen=True)
class Figures:
    """bits: stored, a weight. error: relative L2 of the weights. reference: what the library that
    the format comes from was measured at, on Gaussian weights of other shapes."""

    bits: float
    error: float
    reference: float | None = None


FIGURES: dict[Format, Figures] = {
    Int8(): Figures(8.0104, 0.0085),
    Int8("per-tensor"): Figures(8.0, 0.0115),
    Float8(): Figures(8.0104, 0.0265, 0.0267),
    Float8("float8_e5m2"): Figures(8.0104, 0.0527, 0.0528),
    Int4(128): Figures(4.25, 0.0945, 0.0946),
    IntN(1): Figures(1.5, 0.6099, 0.977),
    IntN(2): Figures(2.5, 0.3330, 0.448),
    IntN(3): Figures(3.5, 0.1725, 0.191),
    IntN(4): Figures(4.5, 0.0862, 0.090),
    IntN(5): Figures(5.5, 0.0431, 0.044),
    IntN(6): Figures(6.5, 0.0214, 0.022),
    IntN(7): Figures(7.5, 0.0106, 0.0114),
    IntN(2, symmetric=True): Figures(2.25, 0.3784, 0.496),
    IntN(3, symmetric=True): Figures(3.25, 0.1901, 0.214),
    IntN(4, symmetric=True): Figures(4.25, 0.0958, 0.1007),
    IntN(5, symmetric=True): Figures(5.25, 0.0480, 0.049),
    IntN(6, symmetric=True): Figures(6.25, 0.0243, 0.024),
    IntN(7, symmetric=True): Figures(7.25, 0.0121, 0.0125),
    Int4Dynamic(): Figures(4.5, 0.0884, 0.1007),
    FloatX(1, 1): Figures(3.0104, 0.3609),
    FloatX(2, 0): Figures(3.0104, 0.2840),
    FloatX(2, 1): Figures(4.0104, 0.1182, 0.113),
    FloatX(2, 2): Figures(5.0104, 0.0575, 0.056),
    FloatX(3, 1): Figures(5.0104, 0.1031),
    FloatX(3, 2): Figures(6.0104, 0.0527, 0.052),
    FloatX(2, 3): Figures(6.0104, 0.0285, 0.028),
    FloatX(3, 3): Figures(7.0104, 0.0265, 0.026),
    FloatX(2, 4): Figures(7.0104, 0.0141),
    Code4("nf4"): Figures(4.5, 0.0870, 0.0915),
    Code4("fp4"): Figures(4.5, 0.1144),
    Code4("nf4", double_quant=True): Figures(4.1270, 0.0870, 0.0915),
    Code4("fp4", double_quant=True): Figures(4.1270, 0.1145),
    BlockFloat8(): Figures(8.0020, 0.0265, 0.0267),
    BlockFloat8("float8_e5m2"): Figures(8.0020, 0.0526, 0.0528),
    MXFP8(): Figures(8.25, 0.0265, 0.0267),
    NVFP4(): Figures(4.5, 0.0842, 0.0953),
    Fine4(32): Figures(4.25, 0.0762),
    Fine4(16): Figures(4.5, 0.0677),
    LlmInt8(): Figures(8.0104, 0.0085),
    Int8ConvRot(activations="int8"): Figures(8.0104, 0.0085, 0.0093),
    W4A8: Figures(4.5106, 0.0712, 0.0731),
    W6A8: Figures(6.5104, 0.0202, 0.0208),
    SvdQuant(): Figures(4.9323, 0.0925),
    SvdQuant("nvfp4"): Figures(5.1823, 0.0814),
    SmoothedNVFP4(): Figures(4.5156, 0.0842),
    SvdQuant(rotation=256): Figures(4.9323, 0.0924),
}
EVERY_FORMAT = list(FIGURES)

# One of each kind, for what costs seconds a format.
EACH_KIND = [
    IntN(3),
    IntN(2, symmetric=True),
    Int4Dynamic(),
    FloatX(3, 2),
    Code4("nf4", double_quant=True),
    Code4("fp4"),
    BlockFloat8(),
    MXFP8(),
    NVFP4(),
    Fine4(),
    LlmInt8(),
    Int8ConvRot(16, "int8"),
    rotated_groups(4, 16),
    rotated_groups(6, 16),
    SvdQuant(rank=8, rotation=16),
    SmoothedNVFP4(),
    SvdQuant("nvfp4", 8),
]
