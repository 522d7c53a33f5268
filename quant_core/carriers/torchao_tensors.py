"""Turns a QuantizedWeight into a torchao tensor of the same codes and scales.

torchao is imported when a weight is attached and not before: the arithmetic does not need it, and a
missing or mismatched torchao must not break anything else.
"""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, version

import torch

from ..errors import TorchAOError
from ..formats import QuantizedWeight

_OLDEST = (0, 17)
_INSTALL = 'Run: python -m pip install "torchao>=0.17,<0.19"'


def require_torchao() -> None:
    """Raises TorchAOError (an ImportError) with the pip line where torchao is missing or too
    old."""
    try:
        found = version("torchao")
    except PackageNotFoundError:
        raise TorchAOError(f"torchao is not installed. {_INSTALL}") from None
    if tuple(map(int, re.findall(r"\d+", found)[:2])) < _OLDEST:
        raise TorchAOError(f"torchao {found} is too old. {_INSTALL}")


def to_torchao(weight: QuantizedWeight) -> torch.Tensor:
    """A torchao tensor of ``weight``'s shape and dtype, over the same storage."""
    from .packed import PackedTensor

    tensor = weight.format.torchao_tensor(weight)
    if tensor is None:
        return PackedTensor.of(weight)
    from .eight_bits import computing_by_format

    return computing_by_format(tensor)
