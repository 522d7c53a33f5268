"""Whether a weight has a shape that a format can store."""

from __future__ import annotations

import math

from .base import Format


def fits(fmt: Format, shape: tuple[int, ...]) -> bool:
    """Whether a weight of ``shape`` [N, K] or [N, ...] can be stored in ``fmt``: its groups and
    rotations of columns take them all."""
    columns = math.prod(shape[1:])
    return all(columns % getattr(fmt, step, 1) == 0 for step in ("group_size", "rotation"))
