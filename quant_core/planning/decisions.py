"""What a plan says: the decision for every layer, and for a whole model.

Tested by tests/quant_core/planning/test_plan.py.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

from ..formats import Format
from .remainder import Remainder

QUANTIZE, KEEP, ALREADY = "quantize", "keep", "already quantized"
ALREADY_QUANTIZED = "already_quantized"


@dataclass(frozen=True)
class LayerPlan:
    """The decision for one layer: QUANTIZE, KEEP or ALREADY, with its reason.

    bytes_before, bytes_after: of the weight as stored. tied_to: the name of the layer whose weight
    it shares, which carries the bytes. source: what a weight that was quantized before is read
    from, to be rounded a second time.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    dtype: str
    action: str
    reason: str
    bytes_before: int
    bytes_after: int
    format: Format | None = None
    tied_to: str | None = None
    source: str | None = None

    def in_format(self, fmt: Format, reason: str | None = None) -> LayerPlan:
        """The same layer, quantized to ``fmt`` and of its size; reason: None keeps the old one."""
        after = fmt.nbytes(self.shape) if self.tied_to is None else 0
        reason = self.reason if reason is None else reason
        return replace(self, action=QUANTIZE, format=fmt, reason=reason, bytes_after=after)

    def to_dict(self) -> dict:
        """Plain values, for JSON; the format as text."""
        format_name = None if self.format is None else str(self.format)
        return {**asdict(self), "shape": list(self.shape), "format": format_name}


@dataclass(frozen=True)
class Plan:
    """The decisions for all layers of a model, before any weight is read.

    requested: the name as given. method: what it resolves to. runs_as: the method that the hardware
    runs instead, or the same. notes: sentences that hold for every such plan. warnings: sentences
    about what is not as it was asked for. remainder: tensors that are no layer's weight, and the
    reasons to keep them.
    """

    requested: str
    method: str
    runs_as: str
    component_type: str
    granularity: str
    preset: str | None
    layers: tuple[LayerPlan, ...] = ()
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    remainder: tuple[Remainder, ...] = ()

    @property
    def bytes_before(self) -> int:
        """Bytes of the whole component: every layer's weight and every other tensor."""
        return sum(each.bytes_before for each in self.layers) + self.remaining_bytes

    @property
    def bytes_after(self) -> int:
        """Bytes of the whole component when the plan is carried out."""
        return sum(each.bytes_after for each in self.layers) + self.remaining_bytes

    @property
    def remaining_bytes(self) -> int:
        """Bytes of all tensors that are not a layer's weight."""
        return sum(each.bytes for each in self.remainder)

    def with_action(self, action: str) -> tuple[LayerPlan, ...]:
        """The layers of that action: QUANTIZE, KEEP or ALREADY."""
        return tuple(layer for layer in self.layers if layer.action == action)

    @property
    def quantized(self) -> tuple[LayerPlan, ...]:
        """The layers to quantize."""
        return self.with_action(QUANTIZE)

    def to_dict(self) -> dict:
        """Plain values, for JSON."""
        layers = [layer.to_dict() for layer in self.layers]
        remainder = [each.to_dict() for each in self.remainder]
        own = asdict(replace(self, layers=(), remainder=()))
        return {**own, "layers": layers, "remainder": remainder}
