"""The basic methods: FP8, INT8 and INT4."""

from __future__ import annotations

from dataclasses import replace

from ..formats import Float8, Int4, Int8
from ..formats.float8 import fits_scaled_mm
from ..formats.int4 import GROUP_SIZES
from .groups import in_groups
from .method import Choice, register_method


@register_method("none", "Leaves the model as it is.")
def _none(shape: tuple[int, ...], granularity: str) -> Choice:
    return Choice(None, "method none")


@register_method(
    "fp8-dynamic",
    "FP8 weights and FP8 activations: half the memory, FP8 tensor cores.",
    needs_fp8_matmul=True,
    fallback="fp8-weight-only",
    weight_only="fp8-weight-only",
)
def _fp8_dynamic(shape: tuple[int, ...], granularity: str) -> Choice:
    if not fits_scaled_mm(shape):
        note = f"weight-only: {shape[0]} x {shape[1]} is not in sixteens, which FP8 matmuls need"
        return Choice(Float8(granularity=granularity), note)
    return Choice(Float8(granularity=granularity, activations="float8_e4m3fn"))


@register_method("fp8-weight-only", "FP8 weights, computed in the model's dtype: half the memory.")
def _fp8_weight_only(shape: tuple[int, ...], granularity: str) -> Choice:
    return Choice(Float8(granularity=granularity))


@register_method("int8", "INT8 weights, computed in the model's dtype: half the memory anywhere.")
def _int8(shape: tuple[int, ...], granularity: str) -> Choice:
    return Choice(Int8(granularity))


register_method("int4", "INT4 weights in groups: a quarter of the memory, visible loss.")(
    in_groups("INT4", Int4, GROUP_SIZES)
)


@register_method(
    "int8-dynamic",
    "INT8 weights and activations: half the memory, INT8 matmuls.",
    weight_only="int8",
)
def _int8_dynamic(shape: tuple[int, ...], granularity: str) -> Choice:
    if shape[1] == 1:
        return Choice(Int8(granularity), "weight-only: torch._int_mm misreads K = 1")
    return Choice(Int8(granularity, activations="int8"))


def with_algorithm(choice: Choice, algorithm: str) -> Choice:
    """``choice`` with the ranges of INT4 groups found by ``algorithm``."""
    fmt = choice.format
    return choice if fmt is None else replace(choice, format=fmt.with_algorithm(algorithm))
