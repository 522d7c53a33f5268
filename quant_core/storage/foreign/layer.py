"""Layers that another library quantized, as its files hold them.

A recogniser knows one library's files by their tensors. It reads headers and small markers, never a
weight: what it finds can be checked in whole before anything is loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from ...errors import StorageError
from ...formats import Format, QuantizedWeight
from ..reader import TensorFiles

Tensors = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class ForeignLayer:
    """One layer that another library quantized, as its file holds it.

    name: as in the file. origin: which library's format it is, for reports. format: what it is kept
    as. dtype: of the weight before it was quantized, or None if the file does not say. tensors: the
    names of all tensors that belong to it. make: turns those tensors into the weight's parts.
    """

    name: str
    origin: str
    format: Format
    shape: tuple[int, ...]
    dtype: torch.dtype | None
    tensors: tuple[str, ...]
    make: Callable[[Tensors], Tensors]

    def read(self, files: Any, dtype: torch.dtype) -> QuantizedWeight:
        """The weight from ``files`` (anything with ``read``); dtype: what it computes in.

        StorageError where the parts are not as the format has them.
        """
        parts = self.make({name: files.read(name) for name in self.tensors})
        expected = self.format.parts(self.shape)
        found = {part: (tensor.dtype, tuple(tensor.shape)) for part, tensor in parts.items()}
        if found != expected:
            raise StorageError(f"{self.name} is {found}, where {self.format} has {expected}.")
        return QuantizedWeight.of_parts(self.format, parts, self.shape, dtype)

    def weight_only(self) -> ForeignLayer:
        """The same weight with activations left as they are, where they would be rounded to FP8."""
        if not self.format.needs_fp8_matmul:
            return self
        fmt = self.format.weight_only()
        stored = fmt.parts(self.shape)

        def make(tensors: Tensors) -> Tensors:
            return {part: t for part, t in self.make(tensors).items() if part in stored}

        return replace(self, format=fmt, make=make, origin=f"{self.origin}, weight-only")


def layers_with(files: TensorFiles, ending: str) -> list[str]:
    """The names of the layers L that have a tensor ``L.ending``."""
    return [name.removesuffix(f".{ending}") for name in files.specs if name.endswith(f".{ending}")]
