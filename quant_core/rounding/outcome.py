"""The result of rounding each layer with a calibration, in figures and in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass

COMPENSATED, NEAREST = "compensated", "nearest"


@dataclass(frozen=True)
class LayerRounding:
    """way: COMPENSATED or NEAREST. weight_error: relative L2 of the weight. output_error: of the
    layer's output on calibration rows that the rounding did not see, its bias corrected where
    bias_corrected; nearest_error: the same of rounding to nearest with the bias as it was. None
    where nothing could be measured. note: why it is not as it was asked."""

    way: str
    weight_error: float | None = None
    output_error: float | None = None
    nearest_error: float | None = None
    bias_corrected: bool = False
    note: str = ""

    def to_dict(self) -> dict:
        """Plain values, for JSON."""
        return asdict(self)


def rounding_lines(rounded: Mapping[str, LayerRounding]) -> list[str]:
    """How many layers were rounded which way, their errors, and the reasons of the exceptions."""
    lines = []
    for way in (COMPENSATED, NEAREST):
        of_way = [each for each in rounded.values() if each.way == way]
        measured = [each for each in of_way if each.output_error is not None]
        if not of_way:
            continue
        line = f"rounding: {len(of_way)} x {way}"
        if measured:
            output, nearest, weight = (
                sum(getattr(each, name) for each in measured) / len(measured)
                for name in ("output_error", "nearest_error", "weight_error")
            )
            line += (
                f", output error {output:.4f} where plain rounding has {nearest:.4f}, "
                f"weight error {weight:.4f}"
            )
        lines.append(line)
    corrected = sum(each.bias_corrected for each in rounded.values())
    if corrected:
        lines.append(f"bias corrected by the mean output error: {corrected} layers")
    notes = Counter(each.note for each in rounded.values() if each.note)
    return lines + [f"rounding: {count} x {note}" for note, count in notes.most_common()]
