"""Which group of weights along K shares a scale, of the sizes that a format has."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..formats import Format, Int8
from .method import Choice, Choose


def in_groups(what: str, make: Callable[[int], Format], sizes: Sequence[int]) -> Choose:
    """A ``choose`` function that takes the first of ``sizes`` that divides K.

    Where none does it takes INT8, whose scale is a row's: that saves half of the layer, where
    keeping it would save nothing. what: the name of the format, for reasons.
    """
    told = ", ".join(map(str, sizes))

    def choose(shape: tuple[int, ...], granularity: str) -> Choice:
        if len(shape) != 2:
            return Choice(None, f"{what} groups are for Linear layers")
        size = next((size for size in sizes if shape[1] % size == 0), None)
        if size is None:
            note = f"INT8: no {what} group size ({told}) divides K = {shape[1]}"
            return Choice(Int8("per-row"), note)
        return Choice(make(size))

    return choose
