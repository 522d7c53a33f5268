"""FP8 weights as layerwise casting stores them: one scale a tensor, and it is a power of two.

A floating point code keeps its relative precision under a power of two, so this costs nothing
(relative L2 0.027, like any scale), and ``code * scale`` is exact in bfloat16 and float32:
the compute copy is never rounded again, casting twice gives the same codes, and a weight that FP8
can hold comes back bit by bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from .base import register_format
from .float8 import Float8


@register_format
@dataclass(frozen=True)
class CastFloat8(Float8):
    """FP8 weights with one power of two as the scale of a tensor.

    scaled: False stores the values themselves (scale 1), like a plain cast, but saturated.
    """

    kind: ClassVar[str] = "cast_float8"

    granularity: str = "per-tensor"
    scaled: bool = True

    def scale_for(self, largest: torch.Tensor) -> torch.Tensor:
        """The least power of two that brings ``largest`` within FP8's range; 1 where not
        ``scaled``."""
        if not self.scaled:
            return torch.ones_like(largest)
        ratio = super().scale_for(largest)
        scale = torch.ldexp(torch.ones_like(ratio), torch.frexp(ratio).exponent)
        return torch.where(scale == 2 * ratio, ratio, scale)  # ratio is a power of two itself

    def __str__(self) -> str:
        return f"{self.dtype} {'per-tensor, power-of-two scale' if self.scaled else 'unscaled'}"
