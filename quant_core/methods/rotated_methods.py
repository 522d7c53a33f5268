"""Methods whose weights and activations are rotated: the stock formats of INT8 products."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from ..codes.rotation import SIZES, rotation_size
from ..formats import Format, Int8, Int8ConvRot
from ..formats.rotated_groups import rotated_groups
from .method import Choice, Choose, register_method

_GROUP = 16
# Two planes of codes in each row, the second in bytes of four, are whole words.
_SIX_BITS_COLUMNS = 32


def _rotated(what: str, make: Callable[[int], Format], multiple: int) -> Choose:
    """Chooses the format that ``make`` gives for the largest rotation that divides K. Where K is no
    multiple of ``multiple`` it is INT8 of one scale a row, rotated if that goes."""

    def choose(shape: tuple[int, ...], granularity: str) -> Choice:
        if len(shape) != 2:
            return Choice(None, f"{what} is for Linear layers")
        k = shape[1]
        size = rotation_size(k)
        if size is None:
            note = f"plain INT8: no rotation ({', '.join(map(str, SIZES))}) divides K = {k}"
            return Choice(Int8("per-row", "int8" if k > 1 else None), note)
        if k % multiple:
            return Choice(
                Int8ConvRot(size, "int8"), f"rotated INT8: {what} needs K in {multiple}s, not {k}"
            )
        return Choice(make(size), "" if size == SIZES[0] else f"rotated by {size}: K = {k}")

    return choose


register_method(
    "int8-convrot",
    "Rotated INT8 weights and activations: the precision of INT8 where activations have outliers.",
    weight_only="int8",
)(_rotated("INT8 ConvRot", lambda size: Int8ConvRot(size, "int8"), 1))

register_method(
    "w4a8",
    "Rotated 4-bit weights, INT8 activations: 4.5 bits a weight, INT8 matmuls. ComfyUI 0.31.",
    weight_only="int4",
)(_rotated("W4A8", partial(rotated_groups, 4), _GROUP))

register_method(
    "w6a8",
    "Rotated 6-bit weights, INT8 activations: 6.5 bits a weight, INT8 matmuls.",
    weight_only="int6",
)(_rotated("W6A8", partial(rotated_groups, 6), _SIX_BITS_COLUMNS))
