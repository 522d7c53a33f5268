"""The values that rotated groups can be stored as.

Tested by tests/quant_core/formats/test_rotated_groups.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from .grid import Grid

if TYPE_CHECKING:
    from .rotated_groups import RotatedGroups


class RotatedGrid(Grid):
    """Levels times a group's scale lie on INT8's grid, so the scale decides which values there
    are."""

    def __init__(self, fmt: RotatedGroups, scale: torch.Tensor, channel: torch.Tensor):
        """scale: [N, groups] in INT8 units. channel: [N], what an INT8 unit is."""
        super().__init__(
            scale * channel[:, None],
            None,
            snap=torch.round,
            store=lambda values: fmt._stored(values, scale, channel),
        )
        object.__setattr__(self, "_parts", (fmt, scale, channel))

    def nearest(self, values: torch.Tensor, group: int, rows: slice) -> torch.Tensor:
        fmt, scale, channel = self._parts
        steps = scale[rows, group, None]
        codes, _ = fmt._nearest((values / channel[rows])[:, None], steps)
        return fmt._grid(codes, steps).squeeze(1).mul_(channel[rows])
