"""Methods that need a measurement first: of the activations, or of the machine."""

from __future__ import annotations

from ..formats import Float8, Int8, StaticFloat8
from ..formats.float8 import fits_scaled_mm
from .low_rank_methods import CALIBRATED
from .method import Choice, register_method

FASTEST, FIT = "fastest", "fit"
MEASURED = ("fp8-static", FASTEST, FIT, *CALIBRATED)


@register_method(
    "fp8-static",
    "FP8 weights and FP8 activations of calibrated scale: needs Calibrate Activations.",
    weight_only="fp8-weight-only",
)
def _fp8_static(shape: tuple[int, ...], granularity: str) -> Choice:
    if not fits_scaled_mm(shape):
        note = f"weight-only: {shape[0]} x {shape[1]} is not in sixteens, which FP8 matmuls need"
        return Choice(Float8(granularity="per-tensor"), note)
    return Choice(StaticFloat8())


@register_method(
    FASTEST,
    "Times the methods on this machine and takes the quickest per layer.",
    weight_only="int8",
)
def _fastest(shape: tuple[int, ...], granularity: str) -> Choice:
    return Choice(None, "fastest times the methods when a plan is made, and chooses then")


@register_method(
    FIT,
    "Name a size: each layer gets the width with which the picture changes least.",
)
def _fit(shape: tuple[int, ...], granularity: str) -> Choice:
    if len(shape) != 2:
        return Choice(None, "fit is for Linear layers")
    return Choice(Int8("per-row"), "fit chooses the format when it knows the size")
