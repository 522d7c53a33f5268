"""A weight as a GGUF file holds it: the blocks as they are, decoded when they are multiplied.

Nothing is rounded on the way in, and the weight stays as small as it is in the file.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch

from ..codes.ggml_blocks import BLOCK_TYPES, BlockType
from ..errors import UnknownNameError
from .base import Format, QuantizedWeight, register_format, row_blocks
from .int8 import Int8


@register_format
@dataclass(frozen=True)
class GGUF(Format):
    """A weight in GGML's blocks, exactly as a GGUF file holds it.

    type: one of ``BLOCK_TYPES``. Stored: qdata, the blocks, uint8 [N, bytes of a row]; scale, 1,
    because the blocks hold their own scales.
    """

    kind: ClassVar[str] = "gguf"

    type: str = "Q8_0"

    def __post_init__(self):
        if self.type not in BLOCK_TYPES:
            raise UnknownNameError("GGUF type", self.type, BLOCK_TYPES)

    @property
    def block(self) -> BlockType:
        """The block type."""
        return BLOCK_TYPES[self.type]

    def quantize(self, weight: torch.Tensor) -> QuantizedWeight:
        """Quantizes ``weight`` to INT8 per row, because there are no encoders of blocks here.

        INT8 rounds less than any block type but Q8_0. This is reached only when a loaded weight is
        changed by something that is not low-rank.
        """
        return Int8().quantize(weight)

    def stored(
        self, blocks: torch.Tensor, shape: tuple[int, ...], dtype: torch.dtype
    ) -> QuantizedWeight:
        """The weight of ``shape`` in ``blocks`` (uint8), one row after another."""
        _, stored = self.parts(shape)["qdata"]
        return QuantizedWeight(self, blocks.view(stored), torch.ones(()), None, shape, dtype)

    def parts(self, shape: tuple[int, ...]) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
        row = math.prod(shape[1:])
        # Blocks may run on over the ends of short rows.
        n, row = (shape[0], row) if row % self.block.size == 0 else (1, shape[0] * row)
        stored = (n, row // self.block.size * self.block.nbytes)
        return {"qdata": (torch.uint8, stored), "scale": (torch.float32, ())}

    def dequantize(self, weight: QuantizedWeight, dtype: torch.dtype) -> torch.Tensor:
        out = torch.empty(weight.shape, dtype=dtype, device=weight.qdata.device)
        values, blocks = out.view(-1, self.block.size), weight.qdata.view(-1, self.block.nbytes)
        decode = self.block.decode or self._decode_by_package
        for some in row_blocks(values):
            values[some] = decode(blocks[some])
        return out

    def _decode_by_package(self, blocks: torch.Tensor) -> torch.Tensor:
        gguf = require_package(self.type)
        kind = gguf.GGMLQuantizationType(self.block.number)
        values = gguf.dequantize(blocks.cpu().numpy(), kind)
        return torch.from_numpy(values).to(blocks.device)

    def in_rows(self, weight: QuantizedWeight) -> QuantizedWeight:
        if len(weight.qdata) != weight.shape[0]:
            raise ValueError(f"{self} blocks run on over the ends of rows")
        return weight

    def kernel(self, device: torch.device) -> str:
        if self.block.decode is None:
            return "dequantize on the CPU (gguf) + matmul"
        return super().kernel(device)

    def __str__(self) -> str:
        return f"GGUF {self.type}"


def require_package(kind: str):
    """The package ``gguf``. ImportError with the pip line where it is missing."""
    try:
        import gguf
    except ImportError as error:
        raise ImportError(
            f"GGUF {kind} needs the package gguf, which is not installed. "
            "Install it into ComfyUI's Python: pip install gguf"
        ) from error
    return gguf
