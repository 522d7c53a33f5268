"""A fine table that tells which of a few uneven levels is nearest.

Searching among the midpoints takes several times as long. Where two midpoints share a bin, or a
value lies close to one, the level beside the nearest may be given.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch


class LevelTable:
    """Nearest of ``levels``, in rising order, for float32 values from -span to span in 2 * bins + 1
    steps; values beyond take the outermost level."""

    def __init__(self, levels: Sequence[float], span: float, bins: int, device: torch.device):
        values = torch.tensor(levels, device=device)
        grid = torch.linspace(-span, span, 2 * bins + 1, device=device)
        places = torch.bucketize(grid, (values[:-1] + values[1:]) / 2)
        self._places, self._values = places.to(torch.uint8), values[places]
        self._span, self._bins = span, bins

    def places(self, values: torch.Tensor) -> torch.Tensor:
        """The place among the levels of the nearest to each of ``values``: uint8."""
        return self._looked_up(self._places, values)

    def snap(self, values: torch.Tensor) -> torch.Tensor:
        """The level nearest to each of ``values``: float32."""
        return self._looked_up(self._values, values)

    def _looked_up(self, table: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        index = values.mul(self._bins / self._span).add_(self._bins).round_()
        index = index.clamp_(0, 2 * self._bins).int()
        return table.index_select(0, index.view(-1)).view_as(values)
