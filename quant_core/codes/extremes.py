"""The largest magnitudes of a weight, which tell whether all of it is finite.

Tested by tests/quant_core/formats/test_base.py.
"""

from __future__ import annotations

import torch

from ..errors import NonFiniteWeightError
from ..kernels.blocks import row_blocks


def absolute_maximum(matrix: torch.Tensor, granularity: str) -> torch.Tensor:
    """The largest magnitude in ``matrix``, float32: [N, 1] per row, [] per tensor.
    NonFiniteWeightError for NaN and infinity."""
    largest = torch.cat([_row_maximum(matrix[block]) for block in row_blocks(matrix)])
    if granularity == "per-tensor":
        largest = largest.amax()
    require_finite(largest)
    return largest


def _row_maximum(rows: torch.Tensor) -> torch.Tensor:
    # On a CPU PyTorch reduces bfloat16 slowly, and aminmax along a dimension very slowly.
    rows = rows.float() if rows.device.type == "cpu" else rows
    return torch.maximum(rows.amax(1, keepdim=True), -rows.amin(1, keepdim=True)).float()


def require_finite(extremes: torch.Tensor) -> None:
    """Raises NonFiniteWeightError unless all of ``extremes``, maxima of a weight, are finite: a
    maximum keeps NaN and infinity."""
    if not torch.isfinite(extremes).all():
        raise NonFiniteWeightError(
            "The weight holds NaN or infinity. Repair or re-download the checkpoint."
        )
