"""LLM.int8(): INT8 weights and activations, but for the columns in which activations are large.

Weights have one scale a row, max |w| / 127. A column of activations with an entry of at least
``threshold`` is computed in the input's dtype with the dequantized weights; what is left is rounded
per token and multiplied in INT8 (Dettmers et al. 2022, arXiv 2208.07339). Codes are bitsandbytes'.
Bits a weight: 8 + 32 / K.

How many columns are large is a value, and asking a GPU for it would stop the CPU and break a CUDA
graph. So a GPU computes K / 8 columns apart, those of the largest entries, whether they are large
or not. Should there be more outliers than that, the others are rounded with the rest.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
import torch.nn.functional as F

from ..kernels import Coding, is_traced, stored_linear
from ..kernels.matmul import fits_int8_matmul
from ..kernels.product import product
from .base import (
    Format,
    Grid,
    QuantizedWeight,
    absolute_maximum,
    register_format,
    row_blocks,
    snap_integers,
)
from .int8 import Int8

_SMALLEST_MAXIMUM = 1e-30
# Of how many columns a GPU computes one apart.
_SHARE_APART = 8


@register_format
@dataclass(frozen=True)
class LlmInt8(Format):
    """bitsandbytes' LLM.int8(): INT8 weights and activations, with outlier columns of activations
    kept apart.

    threshold: the magnitude from which an activation is an outlier; 0 for no outliers.
    ``activations`` has no other value.
    """

    kind: ClassVar[str] = "llm_int8"

    threshold: float = 6.0
    activations: str = "int8"

    def quantize(self, weight: torch.Tensor) -> QuantizedWeight:
        """weight: [N, K]."""
        return self._store(weight, _largest(weight), weight.dtype)

    def grid(self, weight: torch.Tensor, importance: torch.Tensor | None = None) -> Grid | None:
        largest = _largest(weight)
        store = partial(self._store, largest=largest, dtype=weight.dtype)
        return Grid(largest / 127, None, snap_integers(-127, 127), store)

    def _store(
        self, weight: torch.Tensor, largest: torch.Tensor, dtype: torch.dtype
    ) -> QuantizedWeight:
        qdata = torch.empty(weight.shape, dtype=torch.int8, device=weight.device)
        for block in row_blocks(weight):
            qdata[block] = (weight[block].float() * (127.0 / largest[block])).round_()
        return QuantizedWeight(self, qdata, largest / 127, None, tuple(weight.shape), dtype)

    def dequantize(self, weight: QuantizedWeight, dtype: torch.dtype) -> torch.Tensor:
        out = torch.empty(weight.qdata.shape, dtype=dtype, device=weight.qdata.device)
        return torch.mul(weight.qdata, weight.scale, out=out)

    def nbytes(self, shape: tuple[int, ...]) -> int:
        return math.prod(shape) + 4 * shape[0]

    def linear(
        self, x: torch.Tensor, weight: QuantizedWeight, bias: torch.Tensor | None
    ) -> torch.Tensor:
        if not x.numel() or not fits_int8_matmul(x, weight.qdata):
            return stored_linear(x, weight, bias)
        rows = x.reshape(-1, x.shape[-1])
        if not self.threshold:
            y = _int8_product(rows, weight, bias, *_quantize_tokens(rows, None, None))
            return y.reshape(*x.shape[:-1], weight.shape[0])
        columns = None
        if x.device.type != "cpu" and not is_traced(rows):
            count = max(1, rows.shape[1] // _SHARE_APART)
            columns = rows.abs().amax(dim=0).topk(count).indices
        return self._split(rows, weight, bias, columns).reshape(*x.shape[:-1], weight.shape[0])

    def _split(
        self,
        rows: torch.Tensor,
        weight: QuantizedWeight,
        bias: torch.Tensor | None,
        columns: torch.Tensor | None,
    ) -> torch.Tensor:
        """The product, with outlier columns computed separately: those among ``columns``, or all of
        them where that is None."""
        largest = rows.abs().amax(dim=0)
        outliers = largest >= self.threshold
        if columns is not None:
            among = torch.zeros_like(outliers).index_fill_(0, columns, True)
            outliers = outliers & among
        large = (rows.abs() >= self.threshold) & outliers
        codes, scale = _quantize_tokens(rows, large, outliers)
        y = _int8_product(rows, weight, bias, codes, scale)
        return y + self._apart(rows, weight, outliers, columns)

    @property
    def coding(self) -> Coding:
        return Coding(8, "integer", "row")

    def _apart(
        self,
        rows: torch.Tensor,
        weight: QuantizedWeight,
        outliers: torch.Tensor,
        columns: torch.Tensor | None,
    ) -> torch.Tensor | float:
        """The product of the outlier columns. columns: a number of them that is known, and what is
        no outlier counts as zero; None: found by looking."""
        if is_traced(rows):  # no shape may depend on values
            return F.linear(rows * outliers, self.dequantize(weight, rows.dtype))
        if columns is None:
            columns = outliers.nonzero().view(-1)
            if not len(columns):
                return 0.0
        kept = (weight.qdata[:, columns] * weight.scale).to(rows.dtype)
        return F.linear(rows[:, columns] * outliers[columns], kept)

    def in_rows(self, weight: QuantizedWeight) -> QuantizedWeight:
        return weight

    def weight_only(self) -> Format:
        return Int8("per-row")

    def kernel(self, device: torch.device) -> str:
        if device.type not in ("cpu", "cuda"):
            return super().kernel(device)
        return "int8 x int8 matmul (torch._int_mm), outlier columns apart"

    def __str__(self) -> str:
        return f"llm.int8 per-row, int8 activations, threshold {self.threshold:g}"


def _largest(weight: torch.Tensor) -> torch.Tensor:
    return absolute_maximum(weight, "per-row").clamp_(_SMALLEST_MAXIMUM)


def _int8_product(rows, weight, bias, codes, scale) -> torch.Tensor:
    return product(codes, weight.qdata, scale, weight.scale.view(1, -1), bias, rows.dtype)


def _quantize_tokens(
    rows: torch.Tensor, large: torch.Tensor | None, outliers: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """int8 codes [M, K], zero in the outlier columns; float32 scales [M, 1]."""
    values = rows.float()
    if large is not None:
        values = values.masked_fill(large, 0)
    largest = values.abs().amax(dim=1, keepdim=True).clamp_(_SMALLEST_MAXIMUM)
    codes = (values * (127.0 / largest)).round_()
    if outliers is not None:
        codes = codes.masked_fill_(outliers, 0)
    return codes.to(torch.int8), largest / 127
