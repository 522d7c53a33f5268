"""Finds what changed a quantized weight, so that the change can stay beside its codes.

ComfyUI hands a layer the patched weight alone. The change is looked for among the adapters of the
live patchers first, then as a low-rank product of its own.

Tested by tests/nodes/bridge/lora/test_adapter_kinds.py.
"""

from __future__ import annotations

import torch

from .adapters import PatchSource
from .changes import Change
from .low_rank import TOLERANCE, low_rank_factors


def find_change(
    original: torch.Tensor, patched: torch.Tensor, source: PatchSource | None
) -> Change | None:
    """The change from ``original`` to ``patched``, both in the dtype that the patch was added in,
    so that the rounding of the weight cancels out. An empty Change where they are equal.

    source: where the adapters may be found, which also counts how the search went. None where the
    change has to be rounded in: the weight is not a matrix, or the change is not low-rank.
    """
    if torch.equal(original, patched):
        return Change()
    if original.dim() != 2:
        return None
    change, way = _search(original, patched, source)
    if source is not None:
        source.patchers.outcomes[way] += 1
    return change


def _search(
    original: torch.Tensor, patched: torch.Tensor, source: PatchSource | None
) -> tuple[Change | None, str]:
    """The change, and how it was found, in words."""
    if source is not None:
        norm = torch.linalg.vector_norm(original, dtype=torch.float32).item()
        rounding = torch.finfo(patched.dtype).eps * norm
        tolerance = TOLERANCE * Change().distance(original, patched) + rounding
        known = source.change(original, patched, tolerance)
        if known is not None:
            return known, "unfused, by the adapters' own factors"
    factors = low_rank_factors(patched.float() - original.float())
    if factors is None:
        return None, "dequantized, patched and rounded again to nearest"
    return Change(lora_up=factors[0], lora_down=factors[1]), "unfused, by low-rank factors found"
