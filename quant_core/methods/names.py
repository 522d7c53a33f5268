"""What the names of methods mean: the choice's own, families with numbers in them, and aliases."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from ..errors import UnknownNameError
from ..hardware import Hardware
from .method import FAMILIES, METHODS, Method

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


@dataclass(frozen=True)
class Named:
    """What a name means. granularity: the one that the name itself asks for, or None. notes: what
    who knows the name from elsewhere may not expect."""

    method: Method
    granularity: str | None = None
    notes: tuple[str, ...] = ()


@lru_cache(maxsize=256)
def named_method(name: str) -> Named:
    """The meaning of ``name``: a method's own, a family's or an alias. UnknownNameError if none."""
    method = get_method(ALIASES.get(name, name))
    if method is None:
        raise UnknownNameError("method", name, (*METHODS, *ALIASES))
    return Named(method)


def get_method(name: str) -> Method | None:
    """The method whose own name is ``name``, of the choice or of a family."""
    if name in METHODS:
        return METHODS[name]
    for pattern, make in FAMILIES.items():
        match = re.fullmatch(pattern, str(name))
        if match:
            return make(match)
    return None


def resolve_method(name: str) -> str:
    """The name of the method that ``name`` means. UnknownNameError if there is none."""
    return named_method(name).method.name


def method_for(name: str, hardware: Hardware) -> tuple[Method, str | None]:
    """The method that will run on ``hardware``, and why it is not the one asked for."""
    method = named_method(name).method
    if not method.needs_fp8_matmul or hardware.fp8_matmul:
        return method, None
    return METHODS[method.fallback], (
        f"{name} needs FP8 matmuls (NVIDIA SM 8.9 or newer, AMD MI300 or newer), which "
        f"{hardware.name} does not have: {method.fallback} runs instead."
    )
