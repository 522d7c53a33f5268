"""Resolves a name to a method: one of the list, one of a family with numbers, or an alias."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from ..errors import UnknownNameError, UnsupportedMethodError
from ..formats import Int8
from ..hardware import Hardware
from .aliases import ALIASES, GRANULARITY, NOTES, REFUSED
from .method import FAMILIES, METHODS, Choice, Method


@dataclass(frozen=True)
class Named:
    """The meaning of a method's name.

    granularity: the one that the name itself asks for, or None. notes: sentences about what may
    surprise a user who knows the name from another library.
    """

    method: Method
    granularity: str | None = None
    notes: tuple[str, ...] = ()


def named_method(name: str) -> Named:
    """The meaning of ``name``.

    UnknownNameError with the nearest names if it has none or is not a text, UnsupportedMethodError
    for a name that is known elsewhere and not supported here.
    """
    if not isinstance(name, str):
        raise UnknownNameError("method", name, METHODS)
    return _named(name)


@lru_cache(maxsize=256)
def _named(name: str) -> Named:
    if name in REFUSED:
        raise UnsupportedMethodError(REFUSED[name].format(name))
    method = get_method(ALIASES.get(name, name))
    if method is None:
        raise UnknownNameError("method", name, METHODS, ALIASES)
    notes = (NOTES[name],) if name in NOTES else ()
    return Named(method, GRANULARITY.get(name), notes)


def get_method(name: str) -> Method | None:
    """The method whose own name is ``name``, listed or of a family; None where there is none.

    UnsupportedMethodError for a family's name with impossible numbers.
    """
    if name in METHODS:
        return METHODS[name]
    for pattern, make in FAMILIES.items():
        match = re.fullmatch(pattern, str(name))
        if match:
            try:
                return make(match)
            except ValueError as error:
                raise UnsupportedMethodError(str(error)) from error
    return None


def resolve_method(name: str) -> str:
    """The name of the method that ``name`` means. Errors as ``named_method``'s."""
    return named_method(name).method.name


def choose_for_convolution(method: Method, shape: tuple[int, ...], granularity: str) -> Choice:
    """The format that ``method`` gives the weight of a convolution [N, C, ...]: the one of its
    weight-only form, because no kernel here multiplies convolutions in 8 bits; INT8 with a scale
    for each output channel where the method has formats for matrices alone."""
    weight_only = named_method(method.weight_only).method if method.weight_only else method
    choice = weight_only.choose(shape, granularity)
    if choice.format is not None:
        return choice
    return Choice(Int8("per-row"), f"INT8: {method.name} is for Linear layers")


def choose_for_table() -> Choice:
    """The format of an embedding by any method: INT8 with a scale a row, of which single rows are
    decoded. FP8 takes as many bytes and errs by four times as much, and groups of four bits err
    where no product averages it out."""
    return Choice(Int8("per-row"), "rows are looked up and decoded one by one")


def method_for(name: str, hardware: Hardware) -> tuple[Method, str | None]:
    """The method that will run on ``hardware``, and the reason where it is not the one asked for,
    else None."""
    method = named_method(name).method
    if not method.needs_fp8_matmul or hardware.fp8_matmul:
        return method, None
    return METHODS[method.fallback], (
        f"{name} needs FP8 matmuls (NVIDIA SM 8.9 or newer, AMD MI300 or newer), which "
        f"{hardware.name} does not have: {method.fallback} runs instead."
    )
