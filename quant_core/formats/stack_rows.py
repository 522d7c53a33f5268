"""Rows of stored weights as one weight: nothing is rounded again.

ComfyUI has one matrix where diffusers has three, q, k and v. Codes and scales of whole rows can be
put together as they are. A scale that serves a whole tensor becomes one for each of its rows, and
double quantization, whose mean is each tensor's own, is undone: its scales are kept as float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import singledispatch

import torch

from .base import Format, QuantizedWeight, scale_shape
from .block_float8 import BlockFloat8
from .code4 import Code4
from .float8 import Float8
from .gguf import GGUF
from .int4 import Int4
from .int8 import Int8
from .int_n import IntN
from .llm_int8 import LlmInt8


def stack_rows(pieces: Sequence[tuple[QuantizedWeight, slice]]) -> QuantizedWeight:
    """The weight of those rows of each of ``pieces``, in their order.

    ValueError, in words: their formats or widths differ, or rows share codes or scales.
    """
    apart = [(_in_rows(weight.format, weight), rows) for weight, rows in pieces]
    first = apart[0][0]
    for weight, _ in apart:
        if weight.format != first.format or weight.shape[1:] != first.shape[1:]:
            raise ValueError(
                f"{first.format} of {list(first.shape)} and {weight.format} of "
                f"{list(weight.shape)} are not alike"
            )
    parts = {name: _stacked(name, apart) for name in first.tensors}
    shape = (len(parts["qdata"]), *first.shape[1:])
    stored = first.format.parts(shape)
    parts = {name: part.reshape(stored[name][1]) for name, part in parts.items()}
    return QuantizedWeight.of_parts(first.format, parts, shape, first.dtype)


def _stacked(name: str, pieces: Sequence[tuple[QuantizedWeight, slice]]) -> torch.Tensor:
    parts = [(weight.tensors[name], rows) for weight, rows in pieces]
    if parts[0][0].dim() == 0:  # GGUF's, which is 1
        return parts[0][0]
    return torch.cat([part[rows] for part, rows in parts])


@singledispatch
def _in_rows(fmt: Format, weight: QuantizedWeight) -> QuantizedWeight:
    """The same weight, every part of it [N, ...]."""
    raise ValueError(f"{fmt} has scales that are not a row's own")


@_in_rows.register(Int4)
@_in_rows.register(IntN)
@_in_rows.register(LlmInt8)
def _(fmt: Format, weight: QuantizedWeight) -> QuantizedWeight:
    return weight


@_in_rows.register(Int8)
def _(fmt: Int8, weight: QuantizedWeight) -> QuantizedWeight:
    return replace(weight, format=replace(fmt, granularity="per-row"), scale=_of_rows(weight))


@_in_rows.register(Float8)
def _(fmt: Float8, weight: QuantizedWeight) -> QuantizedWeight:
    """Activations of static scale become those of a scale found at run time: there is one a
    tensor, and the tensors' differ."""
    rows = Float8(fmt.dtype, "per-row", fmt.activations)
    return replace(weight, format=rows, scale=_of_rows(weight), input_scale=None)


def _of_rows(weight: QuantizedWeight) -> torch.Tensor:
    return weight.scale.expand(scale_shape(weight.shape, "per-row"))


@_in_rows.register(BlockFloat8)
def _(fmt: BlockFloat8, weight: QuantizedWeight) -> QuantizedWeight:
    scale = weight.scale.repeat_interleave(fmt.rows, dim=0)[: weight.shape[0]]
    return replace(weight, format=replace(fmt, rows=1), scale=scale)


@_in_rows.register(Code4)
def _(fmt: Code4, weight: QuantizedWeight) -> QuantizedWeight:
    n, k = weight.shape
    if k % fmt.block_size:
        raise ValueError(f"{fmt} run on over the ends of rows of {k}")
    parts = {"qdata": weight.qdata.view(n, -1), "scale": fmt.scales(weight).view(n, -1)}
    single = replace(fmt, double_quant=False)
    return QuantizedWeight.of_parts(single, parts, weight.shape, weight.dtype)


@_in_rows.register(GGUF)
def _(fmt: GGUF, weight: QuantizedWeight) -> QuantizedWeight:
    if len(weight.qdata) != weight.shape[0]:
        raise ValueError(f"{fmt} blocks run on over the ends of rows")
    return weight
