"""One weight as it is stored, and the names of the tensors that it may consist of.

Tested by tests/quant_core/formats/test_base.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from ...kernels import decoded

if TYPE_CHECKING:
    from .format import Format

# Code that carries or saves a weight knows only these tensors.
REQUIRED_PARTS = ("qdata", "scale")
BRANCH_PARTS = ("smooth_factor", "proj_up", "proj_down", "pre_quant_scale")
OPTIONAL_PARTS = ("zero_point", "scale_2", "input_scale", "codebook", *BRANCH_PARTS)
PARTS = (*REQUIRED_PARTS, *OPTIONAL_PARTS)


@dataclass(frozen=True)
class QuantizedWeight:
    """One weight as it is stored: a format and its tensors.

    qdata: the codes, in the format's own dtype and shape. scale: as the format defines it.
    zero_point: the same, in weight units. scale_2: the scale of the scales. input_scale: the scale
    of activations, float32. codebook: the numbers that the codes stand for, where each weight has
    its own. smooth_factor, proj_up, proj_down: of a branch beside the codes (see ``svdquant``).
    pre_quant_scale: what activations are multiplied by first. shape and dtype: of the weight before
    it was quantized.
    """

    format: Format
    qdata: torch.Tensor
    scale: torch.Tensor
    zero_point: torch.Tensor | None
    shape: tuple[int, ...]
    dtype: torch.dtype
    scale_2: torch.Tensor | None = None
    input_scale: torch.Tensor | None = None
    codebook: torch.Tensor | None = None
    smooth_factor: torch.Tensor | None = None
    proj_up: torch.Tensor | None = None
    proj_down: torch.Tensor | None = None
    pre_quant_scale: torch.Tensor | None = None

    @classmethod
    def of_parts(
        cls,
        fmt: Format,
        parts: Mapping[str, torch.Tensor | None],
        shape: tuple[int, ...],
        dtype: torch.dtype,
    ) -> QuantizedWeight:
        """The weight whose ``tensors`` are ``parts``."""
        return cls(fmt, shape=tuple(shape), dtype=dtype, **{"zero_point": None, **parts})

    @property
    def tensors(self) -> dict[str, torch.Tensor]:
        """The stored tensors by name, in the order of PARTS; a name whose tensor is None is left
        out."""
        parts = {name: getattr(self, name) for name in PARTS}
        return {name: part for name, part in parts.items() if part is not None}

    @property
    def nbytes(self) -> int:
        """Bytes of all stored tensors."""
        return sum(part.nbytes for part in self.tensors.values())

    def map(self, fn: Callable[[torch.Tensor], torch.Tensor]) -> QuantizedWeight:
        """The same weight with ``fn`` applied to each stored tensor."""
        return replace(self, **{name: fn(part) for name, part in self.tensors.items()})

    def dequantize(self, dtype: torch.dtype | None = None) -> torch.Tensor:
        """The weight as a plain tensor of ``shape``, in ``dtype`` (default: the original one)."""
        return decoded(self, self.dtype if dtype is None else dtype)
