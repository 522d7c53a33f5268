"""The values that rotated groups can be stored as.

Tested by tests/quant_core/formats/test_rotated_groups.py.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from .grid import Grid
from .quantized_weight import QuantizedWeight


class RotatedGrid(Grid):
    """Levels times a group's scale lie on INT8's grid, so the scale decides which values there
    are."""

    def __init__(
        self,
        scale: torch.Tensor,
        channel: torch.Tensor,
        on_grid: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
        store: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], QuantizedWeight],
    ):
        """scale: [N, groups] in INT8 units. channel: [N], the size of an INT8 unit. on_grid: values
        [N, 1] in INT8 units and their scales to the nearest that have a code. store: values [N, K],
        scale and channel to the stored weight."""
        super().__init__(
            scale * channel[:, None],
            None,
            snap=torch.round,
            store=lambda values: store(values, scale, channel),
        )
        object.__setattr__(self, "_parts", (scale, channel, on_grid))

    def nearest(self, values: torch.Tensor, group: int, rows: slice) -> torch.Tensor:
        scale, channel, on_grid = self._parts
        units = (values / channel[rows])[:, None]
        return on_grid(units, scale[rows, group, None]).squeeze(1).mul_(channel[rows])
