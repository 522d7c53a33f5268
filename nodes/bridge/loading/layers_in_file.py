"""A model as a file holds it: plain tensors, and quantized layers that are read one at a time.

Tested by tests/nodes/bridge/loading/test_load_foreign.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch

from ....quant_core.formats import QuantizedWeight


class LayerInFile(Protocol):
    """A quantized layer that is still in its file. shape: its weight's, [N, K] or [N, ...]."""

    shape: tuple[int, ...]

    def read(self, dtype: torch.dtype) -> QuantizedWeight:
        """The weight from the file; dtype: what it computes in. StorageError as its file's."""


@dataclass(frozen=True)
class Layer:
    """A LayerInFile of any kind of file: ``read`` knows the file."""

    shape: tuple[int, ...]
    read: Callable[[torch.dtype], QuantizedWeight]


@dataclass(frozen=True)
class Contents:
    """What a file holds of one model. state: plain tensors by name. layers: quantized ones by the
    layer's name. joined: how many of them are made of several of the file's."""

    state: dict[str, torch.Tensor]
    layers: Mapping[str, LayerInFile]
    joined: int = 0
