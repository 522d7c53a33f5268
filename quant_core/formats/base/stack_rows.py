"""Takes and joins rows of stored weights without rounding anything again.

ComfyUI has one matrix where diffusers has three, q, k and v. Codes and scales of whole rows can be
joined as they are, once each format has divided its parts by rows (``Format.in_rows``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from ...codes.swizzle import swizzle, unswizzle
from .quantized_weight import QuantizedWeight


def stack_rows(pieces: Sequence[tuple[QuantizedWeight, slice | torch.Tensor]]) -> QuantizedWeight:
    """The weight made of the given rows of each of ``pieces``, in order.

    ValueError, in words: their formats or widths differ, or rows share codes or scales.
    """
    apart = [(weight.format.in_rows(weight), rows) for weight, rows in pieces]
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


def _stacked(
    name: str, pieces: Sequence[tuple[QuantizedWeight, slice | torch.Tensor]]
) -> torch.Tensor:
    parts = [(weight.tensors[name], rows) for weight, rows in pieces]
    if parts[0][0].dim() == 0:  # GGUF's, which is 1
        return parts[0][0]
    if name == "codebook":
        return _one_codebook([part for part, _ in parts])
    return torch.cat([part[rows] for part, rows in parts])


def _one_codebook(tables: Sequence[torch.Tensor]) -> torch.Tensor:
    if not all(torch.equal(tables[0], table) for table in tables):
        raise ValueError("their codebooks differ")
    return tables[0]


def take_swizzled_rows(
    weight: QuantizedWeight, rows: slice, columns: int, multiple: int
) -> QuantizedWeight:
    """Some rows of a weight whose block scales are swizzled, [H, columns] before that.

    multiple: of rows, that the codes are padded to. ValueError where ``rows`` do not fit.
    """
    if rows.start % multiple or rows.stop % multiple:
        raise ValueError(f"rows {rows.start} to {rows.stop} are not in groups of {multiple}")
    scale = unswizzle(weight.scale, weight.qdata.shape[0], columns)[rows]
    return replace(
        weight,
        qdata=weight.qdata[rows].clone(),
        scale=swizzle(scale),
        shape=(rows.stop - rows.start, *weight.shape[1:]),
    )
