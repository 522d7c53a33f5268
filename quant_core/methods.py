"""The methods a user can choose, their aliases, and the format each gives a layer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from .errors import UnknownNameError
from .formats import Float8, Format, Int4, Int8
from .formats.float8 import fits_scaled_mm
from .formats.int4 import GROUP_SIZES, group_size_for
from .hardware import Hardware

GRANULARITIES = ("per-row", "per-tensor")


@dataclass(frozen=True)
class Choice:
    """The format of one layer, or None and the reason why the layer is kept. A note goes into the
    layer's reason."""

    format: Format | None
    note: str = ""


@dataclass(frozen=True)
class Method:
    """choose: (weight shape, granularity) -> Choice. needs_fp8_matmul: without the hardware the
    method named in ``fallback`` runs instead."""

    name: str
    summary: str
    choose: Callable[[tuple[int, ...], str], Choice]
    needs_fp8_matmul: bool = False
    fallback: str = ""


METHODS: dict[str, Method] = {}


def register_method(
    name: str, summary: str, *, needs_fp8_matmul: bool = False, fallback: str = ""
) -> Callable:
    """Decorator: adds the ``choose`` function of a method to the table."""

    def register(choose: Callable[[tuple[int, ...], str], Choice]) -> Callable:
        METHODS[name] = Method(name, summary, choose, needs_fp8_matmul, fallback)
        return choose

    return register


@register_method("none", "Leaves the model as it is.")
def _none(shape: tuple[int, ...], granularity: str) -> Choice:
    return Choice(None, "method none")


@register_method(
    "fp8-dynamic",
    "FP8 weights and FP8 activations: half the memory, FP8 tensor cores.",
    needs_fp8_matmul=True,
    fallback="fp8-weight-only",
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


@register_method("int4", "INT4 weights in groups: a quarter of the memory, visible loss.")
def _int4(shape: tuple[int, ...], granularity: str) -> Choice:
    group_size = group_size_for(shape[1]) if len(shape) == 2 else None
    if group_size is None:
        sizes = ", ".join(map(str, GROUP_SIZES))
        return Choice(None, f"no INT4 group size ({sizes}) divides K = {shape[1]}")
    return Choice(Int4(group_size))


@register_method("int8-dynamic", "INT8 weights and activations: half the memory, INT8 matmuls.")
def _int8_dynamic(shape: tuple[int, ...], granularity: str) -> Choice:
    if shape[1] == 1:
        return Choice(Int8(granularity), "weight-only: torch._int_mm misreads K = 1")
    return Choice(Int8(granularity, activations="int8"))


def with_algorithm(choice: Choice, algorithm: str) -> Choice:
    """``choice`` with INT4 ranges found by ``algorithm``; no other format has such an option."""
    if not isinstance(choice.format, Int4):
        return choice
    return replace(choice, format=replace(choice.format, algorithm=algorithm))


VALID_METHODS = tuple(METHODS)

ALIASES = {
    "fp8": "fp8-dynamic",
    "diffsynth-fp8": "fp8-dynamic",
    "fp8-filtered": "fp8-weight-only",
    "8bit": "int8",
    "4bit": "int4",
    "int8wo": "int8",
    "int8_weight_only": "int8",
    "int8dq": "int8-dynamic",
    "int8_dynamic_activation_int8_weight": "int8-dynamic",
    "int4wo": "int4",
    "int4_weight_only": "int4",
    "float8wo": "fp8-weight-only",
    "float8wo_e4m3": "fp8-weight-only",
    "float8_weight_only": "fp8-weight-only",
    "float8dq": "fp8-dynamic",
    "float8dq_e4m3": "fp8-dynamic",
    "float8dq_e4m3_row": "fp8-dynamic",
    "float8_dynamic_activation_float8_weight": "fp8-dynamic",
}


def resolve_method(name: str) -> str:
    """The method that ``name`` means, itself or by alias. UnknownNameError otherwise."""
    method = ALIASES.get(name, name)
    if method not in METHODS:
        raise UnknownNameError("method", name, VALID_METHODS + tuple(ALIASES))
    return method


def method_for(name: str, hardware: Hardware) -> tuple[Method, str | None]:
    """The method that will run on ``hardware``, and why it is not the one asked for."""
    method = METHODS[name]
    if not method.needs_fp8_matmul or hardware.fp8_matmul:
        return method, None
    return METHODS[method.fallback], (
        f"{name} needs FP8 matmuls (NVIDIA SM 8.9 or newer, AMD MI300 or newer), which "
        f"{hardware.name} does not have: {method.fallback} runs instead."
    )
