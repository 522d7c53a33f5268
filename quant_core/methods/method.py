"""What a method is, and the tables of all."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from ..formats import Format

GRANULARITIES = ("per-row", "per-tensor")


@dataclass(frozen=True)
class Choice:
    """The format of one layer, or None and the reason why the layer is kept. A note goes into the
    layer's reason."""

    format: Format | None
    note: str = ""


Choose = Callable[[tuple[int, ...], str], Choice]


@dataclass(frozen=True)
class Method:
    """choose: (weight shape, granularity) -> Choice. needs_fp8_matmul: without the hardware the
    method named in ``fallback`` runs instead. weight_only: of a method that quantizes activations,
    the one that stores the same weights and does not."""

    name: str
    summary: str
    choose: Choose
    needs_fp8_matmul: bool = False
    fallback: str = ""
    weight_only: str = ""


# The methods of the choice, in its order, which is for ever: new ones are appended.
METHODS: dict[str, Method] = {}

# Methods with numbers in their names, too many to list: what makes one of a name, by its pattern.
FAMILIES: dict[str, Callable[[re.Match[str]], Method]] = {}


def register_method(name: str, summary: str, **options) -> Callable[[Choose], Choose]:
    """Decorator: adds the ``choose`` function of a method to the choice."""

    def register(choose: Choose) -> Choose:
        METHODS[name] = Method(name, summary, choose, **options)
        return choose

    return register


def register_family(pattern: str) -> Callable:
    """Decorator: every name that ``pattern`` matches whole is a method, made by the function; its
    ValueError says why a name that looks like one is none."""

    def register(make: Callable[[re.Match[str]], Method]) -> Callable:
        FAMILIES[pattern] = make
        return make

    return register
