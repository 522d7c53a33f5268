"""The values that the weights of one layer can be stored as, once its scales are chosen.

Rounding to nearest asks a format for codes. Rounding that compensates the errors of earlier columns
asks for the nearest values of one column at a time, under fixed scales. A ``Grid`` gives these, and
turns the rounded values into the stored weight.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from .quantized_weight import QuantizedWeight


@dataclass(frozen=True)
class Grid:
    """The storable values ``snap(u) * step + zero`` of one weight [N, K].

    step, zero: float32 [N, groups], each for the same number of consecutive columns; no zero where
    that is 0 everywhere. snap: float32 values in steps, of any shape, to the nearest that have a
    code; it may write into them. store: values [N, K] to the weight of their nearest codes under
    these scales.
    """

    step: torch.Tensor
    zero: torch.Tensor | None
    snap: Callable[[torch.Tensor], torch.Tensor]
    store: Callable[[torch.Tensor], QuantizedWeight]

    def nearest(self, values: torch.Tensor, group: int, rows: slice) -> torch.Tensor:
        """The storable values nearest to ``values`` (float32 [n], of one column in ``group``)."""
        step, inverse = self._step_by_group[group, rows], self._inverse_by_group[group, rows]
        if self._zero_by_group is None:
            return self.snap(values * inverse).mul_(step)
        zero = self._zero_by_group[group, rows]
        return self.snap((values - zero).mul_(inverse)).mul_(step).add_(zero)

    @cached_property
    def _step_by_group(self) -> torch.Tensor:
        return self.step.t().contiguous()

    @cached_property
    def _inverse_by_group(self) -> torch.Tensor:
        # A group of zeros may have a step of zero: all its values are its zero.
        return torch.where(self._step_by_group == 0, 0.0, self._step_by_group.reciprocal())

    @cached_property
    def _zero_by_group(self) -> torch.Tensor | None:
        return None if self.zero is None else self.zero.t().contiguous()


def snap_integers(lowest: int, highest: int) -> Callable[[torch.Tensor], torch.Tensor]:
    """Snaps to whole numbers from ``lowest`` to ``highest``."""
    return lambda values: values.round_().clamp_(lowest, highest)


def snap_table(table: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    """Snaps to the values of ``table``, float32 in rising order."""
    middles = (table[1:] + table[:-1]) / 2
    return lambda values: table[torch.bucketize(values, middles)]


def snap_float8(dtype: torch.dtype) -> Callable[[torch.Tensor], torch.Tensor]:
    """Snaps to the values of an 8-bit floating point dtype."""
    limit = torch.finfo(dtype).max
    return lambda values: values.clamp_(-limit, limit).to(dtype).float()
