"""How a stored weight is decoded, as data: what kernels need to know of a format."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Protocol

import torch


@dataclass(frozen=True)
class Coding:
    """How the codes of a weight, their values and their scales are stored.

    bits: of a code. packing: eight codes lie in ``bits`` bytes, the first in the lowest bits,
    "low first"; of 4 bits, the first code of a byte is its high nibble, "high first"; of 6 bits,
    the low nibbles of a row come first, then four pairs of high bits a byte, "planes".
    values: "integer", "e4m3", "e5m2", or "table", one float32 for each code.
    scales: one a "tensor"; a "row"; a "group" of ``group`` along K; a "flat" group of the weight's
    elements in a row without regard to rows, whose codes then run on too; a "square" of
    ``group_rows`` x ``group``; or "swizzled", a group each, where tensor cores look for them.
    scale_values: "float"; "e4m3" or "e8m0", as bytes; "dynamic": codes into ``scale_table``, times
    ``scale_2`` for each 256 of them, plus ``zero_point``.
    whole: code * scale is rounded to an integer, which is the code of an INT8 matmul.
    zero: added to code * scale. "none"; "stored", one for each scale; "middle": of the middle code.
    """

    bits: int = 8
    values: str = "integer"
    scales: str = "row"
    group: int = 1
    group_rows: int = 1
    scale_values: str = "float"
    zero: str = "none"
    packing: str = "low first"
    whole: bool = False
    table: tuple[float, ...] = ()
    scale_table: tuple[float, ...] = ()

    def to_text(self) -> str:
        """For an operator's argument; ``coding_of`` reads it."""
        return json.dumps(asdict(self))


@lru_cache
def coding_of(text: str) -> Coding:
    """The inverse of ``Coding.to_text``."""
    values = json.loads(text)
    return Coding(**{n: tuple(v) if isinstance(v, list) else v for n, v in values.items()})


class Stored(Protocol):
    """What kernels read of a ``QuantizedWeight``."""

    qdata: torch.Tensor
    scale: torch.Tensor
    zero_point: torch.Tensor | None
    scale_2: torch.Tensor | None
    shape: tuple[int, ...]
    codebook: torch.Tensor | None


@dataclass(frozen=True)
class StoredParts:
    """A ``Stored`` made of its parts alone, without a ``QuantizedWeight``."""

    qdata: torch.Tensor
    scale: torch.Tensor
    zero_point: torch.Tensor | None
    scale_2: torch.Tensor | None
    shape: tuple[int, ...]
    codebook: torch.Tensor | None = None
