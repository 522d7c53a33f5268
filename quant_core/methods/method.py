"""What a method is, and the tables of all."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from ..formats import Format

GRANULARITIES = ("per-row", "per-tensor")


@dataclass(frozen=True)
class Choice:
    """What a method decides for one layer.

    format: None where the layer stays unquantized; ``note`` is then the reason. Otherwise a note,
    if there is one, is added to the layer's reason in the report.
    """

    format: Format | None
    note: str = ""


Choose = Callable[[tuple[int, ...], str], Choice]


@dataclass(frozen=True)
class Method:
    """A quantization method that users choose by its name.

    summary: one sentence for the dropdown's tooltip. choose: (weight shape, granularity) -> Choice.
    needs_fp8_matmul: on hardware without FP8 matmuls the method named ``fallback`` runs instead.
    weight_only: for a method that quantizes activations, the name of the method that stores the
    same weights and leaves activations alone.
    """

    name: str
    summary: str
    choose: Choose
    needs_fp8_matmul: bool = False
    fallback: str = ""
    weight_only: str = ""


# The order in which users see the methods. Saved workflows rely on it: append new names at the end,
# and never rename, move or remove one.
ORDER = (
    "none",
    "fp8-dynamic",
    "fp8-weight-only",
    "int8",
    "int4",
    "int8-dynamic",
    "int4-dynamic",
    "llm.int8",
    "nf4",
    "fp4",
    "int2",
    "int3",
    "int5",
    "int6",
    "fp6",
    "fp8-block",
    "mxfp8",
    "nvfp4",
    "fp8-static",
    "fastest",
    "int8-convrot",
    "w4a8",
    "w6a8",
    "nf4-fine",
    "fit",
    "svdquant-int4",
    "svdquant-nvfp4",
)

# Every registered method by its name, in the order of ORDER whatever the order of imports.
METHODS: dict[str, Method] = {}

# Makes a method from a name with numbers in it (int3-g64), by the pattern that the name matches.
FAMILIES: dict[str, Callable[[re.Match[str]], Method]] = {}


def register_method(name: str, summary: str, **options) -> Callable[[Choose], Choose]:
    """Decorator: registers the ``choose`` function of the method ``name``.

    ``options`` are further fields of ``Method``. ValueError where ``name`` is not in ORDER.
    """
    if name not in ORDER:
        raise ValueError(f"Method {name!r} has no place. Append it to ORDER in methods/method.py.")

    def register(choose: Choose) -> Choose:
        METHODS[name] = Method(name, summary, choose, **options)
        for later in ORDER[ORDER.index(name) + 1 :]:
            if later in METHODS:
                METHODS[later] = METHODS.pop(later)
        return choose

    return register


def register_family(pattern: str) -> Callable:
    """Decorator: registers a function that makes a method from a name that ``pattern`` matches.

    ``pattern`` must match the whole name. The function raises ValueError, with the reason, where
    the numbers in the name are impossible.
    """

    def register(make: Callable[[re.Match[str]], Method]) -> Callable:
        FAMILIES[pattern] = make
        return make

    return register
