"""The report of what was done: one object for the log line, the panel, the tests and JSON."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from .fit import effect_lines
from .planning.decisions import ALREADY, KEEP, Plan
from .rounding import LayerRounding, rounding_lines

MIB = 1024 * 1024


@dataclass(frozen=True)
class Report:
    """What quantizing a model did: the plan that was carried out, and what was measured.

    seconds: for quantizing alone. model_bytes_before, model_bytes_after: of the whole component.
    kernel: what multiplies the quantized layers, in words. notes: what was chosen, and why; unlike
    warnings they need no attention. rounding: what a calibration did, by layer. effects: what each
    layer is expected to do to the final latent (``expected_effects``), where that was measured.
    """

    plan: Plan
    kernel: str
    seconds: float
    model_bytes_before: int
    model_bytes_after: int
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    rounding: Mapping[str, LayerRounding] = field(default_factory=dict)
    measured: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    effects: Mapping[str, float] = field(default_factory=dict)

    @property
    def quantized_layers(self) -> int:
        """How many layers were quantized."""
        return len(self.plan.quantized)

    @property
    def total_layers(self) -> int:
        """How many layers were considered."""
        return len(self.plan.layers)

    @property
    def quantized_bytes_before(self) -> int:
        """Bytes of the quantized layers' weights before."""
        return sum(layer.bytes_before for layer in self.plan.quantized)

    @property
    def quantized_bytes_after(self) -> int:
        """Bytes of the quantized layers' weights after."""
        return sum(layer.bytes_after for layer in self.plan.quantized)

    def to_dict(self) -> dict:
        """Plain values, for JSON: counts, bytes, and every layer with its reason."""
        plan = self.plan.to_dict()
        for layer in plan["layers"]:
            rounded = self.rounding.get(layer["name"])
            layer["rounding"] = None if rounded is None else rounded.to_dict()
            layer["effect"] = self.effects.get(layer["name"])
        return {
            **plan,
            "warnings": [*self.plan.warnings, *self.warnings],
            "notes": [*self.notes, *self.plan.notes],
            "kernel": self.kernel,
            "measured": {name: dict(values) for name, values in self.measured.items()},
            "seconds": self.seconds,
            "quantized_layers": self.quantized_layers,
            "skipped_layers": self.total_layers - self.quantized_layers,
            "total_layers": self.total_layers,
            "model_bytes_before": self.model_bytes_before,
            "model_bytes_after": self.model_bytes_after,
            "quantized_bytes_before": self.quantized_bytes_before,
            "quantized_bytes_after": self.quantized_bytes_after,
            "quantized_elements": sum(
                math.prod(layer.shape) for layer in self.plan.quantized if layer.tied_to is None
            ),
        }

    def to_json(self) -> str:
        """``to_dict`` as JSON text."""
        return json.dumps(self.to_dict(), indent=2)

    def summary(self) -> str:
        """The result in one line."""
        method = self.plan.runs_as
        if self.plan.method != self.plan.runs_as:
            method = f"{self.plan.method} as {self.plan.runs_as}"
        return (
            f"{method}: {self.quantized_layers} of {self.total_layers} layers quantized, "
            f"{self.model_bytes_before / MIB:.1f} -> {self.model_bytes_after / MIB:.1f} MiB, "
            f"{self.seconds:.1f} s; {self.kernel}"
        )

    def to_markdown(self) -> str:
        """The summary, warnings and notes, and how many layers have which format or were kept for
        which reason."""
        lines = [self.summary(), ""]
        lines += [f"- warning: {text}" for text in (*self.plan.warnings, *self.warnings)]
        lines += [f"- note: {text}" for text in (*self.notes, *self.plan.notes)]
        lines += [f"- preset: {self.plan.preset or 'none'}"]
        formats = Counter((str(la.format), la.source, la.reason) for la in self.plan.quantized)
        for (name, source, note), count in formats.most_common():
            text = f"{source} to {name}" if source else name
            lines.append(f"- quantized: {count} x {text}" + (f" ({note})" if note else ""))
        told = (*rounding_lines(self.rounding), *effect_lines(self.effects))
        lines += [f"- {text}" for text in told]
        for action, word in ((KEEP, "kept"), (ALREADY, "left")):
            reasons = Counter(layer.reason for layer in self.plan.with_action(action))
            lines += [f"- {word}: {count} x {reason}" for reason, count in reasons.most_common()]
        lines += [
            f"- no layer: {len(each.names)} x {each.kind}, {each.bytes / MIB:.2f} MiB: "
            f"{each.reason} ({each.names[0]})"
            for each in self.plan.remainder
        ]
        return "\n".join(lines)
