"""bitsandbytes' dynamic 8-bit code: 256 values from -1 to 1, finer towards zero.

For each power of ten from 1e-7 to 1: the means between evenly spaced bounds (Dettmers 2015,
arXiv 1511.04561). Values equal those of ``bitsandbytes.functional.create_dynamic_map`` bit by bit.
"""

from __future__ import annotations

import torch

_POWERS = 7


def _values() -> tuple[float, ...]:
    values = [0.0, 1.0]
    for power in range(_POWERS):
        bounds = torch.linspace(0.1, 1, 2**power + 1, dtype=torch.float32)
        means = (bounds[:-1] + bounds[1:]) / 2
        positive = (10.0 ** (power - _POWERS + 1) * means).tolist()
        values += [*positive, *(-value for value in positive)]
    return tuple(sorted(values))


DYNAMIC_CODE = _values()
