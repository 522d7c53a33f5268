"""INT4 weights, symmetric in groups along K, with INT8 activations: torchao's int4dq.

Activations are rounded per token to 256 codes between their own extremes (zero among them), as
torchao's Int8DynamicActivationInt4Weight rounds them; weights as in ``int_n``. There is no matmul
of INT8 by INT4 with a scale a group, so both are dequantized and multiplied. Bits a weight: 4.5 in
groups of 32.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from ..kernels import is_traced, stored_linear
from .base import Format, QuantizedWeight, register_format, row_blocks
from .int_n import IntN

_SMALLEST_SCALE = 1e-30


@register_format
@dataclass(frozen=True)
class Int4Dynamic(IntN):
    """Symmetric INT4 weights in groups, with activations rounded to INT8. ``activations`` has no
    other value."""

    kind: ClassVar[str] = "int4_dynamic"

    bits: int = 4
    group_size: int = 32
    symmetric: bool = True
    activations: str = "int8"

    def linear(
        self, x: torch.Tensor, weight: QuantizedWeight, bias: torch.Tensor | None
    ) -> torch.Tensor:
        return stored_linear(round_tokens(x), weight, bias)

    def weight_only(self) -> Format:
        return IntN(self.bits, self.group_size, self.symmetric, self.algorithm)

    @property
    def product_kind(self) -> str | None:
        return None

    def __str__(self) -> str:
        return f"{super().__str__()}, int8 activations"


def round_tokens(x: torch.Tensor) -> torch.Tensor:
    """``x`` [..., K] rounded to INT8 and back, affine, with one scale and one zero point per
    row."""
    rows = x.reshape(-1, x.shape[-1])
    if is_traced(x):
        return _rounded(rows).to(x.dtype).view(x.shape)
    out = torch.empty(rows.shape, dtype=x.dtype, device=x.device)
    for block in row_blocks(rows):
        out[block] = _rounded(rows[block])
    return out.view(x.shape)


def _rounded(rows: torch.Tensor) -> torch.Tensor:
    values = rows.float()
    # torch.aminmax along a dimension takes far longer on a CPU.
    low = values.amin(-1, keepdim=True).clamp_(max=0)
    high = values.amax(-1, keepdim=True).clamp_(min=0)
    scale = ((high - low) / 255).clamp_(_SMALLEST_SCALE)
    zero = (-128 - (low / scale).round()).clamp_(-128, 127)
    codes = ((values / scale).round_() + zero).clamp_(-128, 127)
    return codes.sub_(zero).mul_(scale)
