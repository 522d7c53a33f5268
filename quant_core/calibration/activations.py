"""What the activations of each layer looked like while a model ran.

A static scale maps the largest magnitude seen, or a percentile of all magnitudes, to the largest
code. Percentiles come from counts over bfloat16's 32768 magnitudes, so they are exact to its
precision, 0.4 %, however long the run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from ..errors import CalibrationError
from .fingerprint import Fingerprint

FEWEST_ROWS = 16
"""How many rows of a layer's inputs it takes at least to round its weight by them."""

_MAGNITUDES = 2**15  # bfloat16 without its sign
_INFINITY = 0x7F80


@dataclass(frozen=True)
class LayerActivations:
    """What the inputs of one layer looked like over a run.

    maximum: the largest |x|, or the percentile that was asked for. rows: the most in one call.
    calls: how many there were.
    """

    maximum: float
    rows: int
    calls: int


@dataclass(frozen=True)
class Calibration:
    """What reached the layers of a model in one run: data that scales and rounding are chosen by.

    layers: by name within the model, those that were called. percentile: the share of all |x| that
    ``maximum`` covers; 100 covers all. rows: some of each layer's inputs, bfloat16 [rows, K] on the
    CPU; layers that were given the same share a tensor. model: which model it was.
    """

    layers: Mapping[str, LayerActivations]
    percentile: float = 100.0
    rows: Mapping[str, torch.Tensor] = field(default_factory=dict, compare=False, repr=False)
    model: Fingerprint | None = None

    @property
    def row_bytes(self) -> int:
        """Main memory that the rows take, shared ones once."""
        return sum(each.nbytes for each in {id(rows): rows for rows in self.rows.values()}.values())

    def to_dict(self) -> dict:
        """Plain values, for JSON."""
        layers = {name: vars(layer) for name, layer in self.layers.items()}
        return {"percentile": self.percentile, "layers": layers}


@dataclass
class ActivationStatistics:
    """Collects the activations of one layer while a model runs."""

    percentile: float = 100.0
    maximum: float = 0.0
    rows: int = 0
    calls: int = 0
    counts: torch.Tensor | None = field(default=None, repr=False)

    def __post_init__(self):
        percentile = self.percentile
        if not isinstance(percentile, int | float) or not 50 <= percentile <= 100:
            shown = f"{percentile:g}" if isinstance(percentile, float) else repr(percentile)
            raise CalibrationError(
                f"percentile is {shown}: choose 50 to 100, as 99.99. 100 takes the maximum."
            )

    def add(self, x: torch.Tensor) -> None:
        """Adds one call's input x [..., K], float; an empty one is ignored. CalibrationError for
        NaN and infinity."""
        if x.numel() == 0:
            return
        self.calls += 1
        self.rows = max(self.rows, x.numel() // x.shape[-1])
        magnitudes = x.detach().abs()
        largest = magnitudes.amax().item()
        if not largest < float("inf"):
            raise CalibrationError(
                "The calibration run gave NaN or infinite activations. "
                "Check the model and the conditioning with a plain KSampler first."
            )
        self.maximum = max(self.maximum, largest)
        if self.percentile < 100:
            bits = magnitudes.bfloat16().view(torch.int16).flatten().int()
            counts = torch.bincount(bits, minlength=_MAGNITUDES).cpu()
            self.counts = counts if self.counts is None else self.counts + counts

    def result(self) -> LayerActivations:
        """What was collected so far."""
        return LayerActivations(self._covered(), self.rows, self.calls)

    def _covered(self) -> float:
        if self.counts is None:
            return self.maximum
        covered = self.counts.cumsum(0)
        index = torch.searchsorted(covered, self.percentile / 100 * covered[-1].item())
        index = index.clamp(max=_INFINITY - 1).to(torch.int16)
        return min(index.view(torch.bfloat16).item(), self.maximum)
