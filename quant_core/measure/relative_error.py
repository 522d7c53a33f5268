"""The error of a tensor against its reference, summed up piece by piece.

Sums are all that is kept, so a run of any length takes no memory. Each piece is summed in float32,
the pieces in Python's float64: 1e-6 relative, on devices without float64 too.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import torch

_PIECE = 4 * 1024 * 1024  # elements: 16 MiB of float32


@dataclass(frozen=True)
class Error:
    """How far a tensor is from its reference. relative_l2: ||result - reference|| / ||reference||.
    cosine: of the angle between the two."""

    relative_l2: float
    cosine: float

    @property
    def sqnr(self) -> float:
        """Signal to quantization noise, ||reference||^2 / ||result - reference||^2, in dB."""
        return -20 * math.log10(self.relative_l2) if self.relative_l2 else math.inf

    def to_dict(self) -> dict[str, float | None]:
        """Plain values, for JSON, which has no infinity: None stands for it."""
        values = {**asdict(self), "sqnr_db": self.sqnr}
        return {name: value if math.isfinite(value) else None for name, value in values.items()}


@dataclass
class RunningError:
    """The error of a long series of tensors, from sums of squares over all pairs that were
    added."""

    pairs: int = 0
    difference: float = 0.0
    result: float = 0.0
    reference: float = 0.0
    product: float = 0.0

    def add(self, result: torch.Tensor, reference: torch.Tensor) -> None:
        """Adds a pair of one shape on one device, of any float dtypes. ValueError if shapes
        differ."""
        if result.shape != reference.shape:
            shapes = f"{tuple(result.shape)} and {tuple(reference.shape)}"
            raise ValueError(f"Shapes differ, {shapes}: an error is of pairs of one shape.")
        self.pairs += 1
        sides = (side.reshape(-1).split(_PIECE) for side in (result, reference))
        for one, other in zip(*sides, strict=True):
            one, other = one.float(), other.float()
            apart = one - other
            sums = [a.dot(b) for a, b in ((apart, apart), (one, one), (other, other), (one, other))]
            apart, one, other, product = torch.stack(sums).tolist()
            self.difference += apart
            self.result += one
            self.reference += other
            self.product += product

    def error(self) -> Error | None:
        """The error over all pairs; None before the first one. Zeros against zeros have none."""
        if self.pairs == 0:
            return None
        if self.reference == self.result == 0:
            return Error(0.0, 1.0)
        lengths = math.sqrt(self.result) * math.sqrt(self.reference)
        relative = math.sqrt(self.difference / self.reference) if self.reference else math.inf
        return Error(relative, self.product / lengths if lengths else 0.0)


def error_of(result: torch.Tensor, reference: torch.Tensor) -> Error:
    """The error of one pair of tensors of the same shape."""
    running = RunningError()
    running.add(result, reference)
    return running.error()
