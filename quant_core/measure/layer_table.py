"""A table of layers with what each one's quantization costs, worst first."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

from ..fit import in_all
from ..planning.decisions import QUANTIZE, LayerPlan
from ..report import MIB
from .relative_error import Error

COLUMNS = ("layer", "latent L2", "output L2", "weight L2", "MiB", "format", "reason")


@dataclass(frozen=True)
class LayerError:
    """The error of one layer of a quantized model.

    weight: of its stored weight against the reference's. output: of its output against what the
    reference's weight gives for the same activations. effect: what the layer is expected to do by
    itself to the final latent, in relative L2. None where it was not measured.
    """

    layer: LayerPlan
    weight: Error | None = None
    output: Error | None = None
    effect: float | None = None

    @property
    def rank(self) -> tuple[float, float]:
        """What orders layers, the larger first: the effect where there is one, then ``worst``."""
        return (-1.0 if self.effect is None else self.effect, self.worst)

    @property
    def worst(self) -> float:
        """The relative L2 of the layer's output, else of its weight; -1 where neither was
        measured."""
        error = self.output or self.weight
        return -1.0 if error is None else error.relative_l2

    @property
    def format(self) -> str:
        """How the layer is stored, in words."""
        if self.layer.format is not None:
            return str(self.layer.format)
        return self.layer.reason.removeprefix("already quantized: ")

    def to_dict(self) -> dict:
        """Plain values, for JSON."""
        return {
            **self.layer.to_dict(),
            "weight": None if self.weight is None else self.weight.to_dict(),
            "output": None if self.output is None else self.output.to_dict(),
            "effect": self.effect,
        }


@dataclass(frozen=True)
class LayerTable:
    """The layers of a model with the error of each quantized one.

    quantized: worst first, by the effect on the final latent where that is known. kept: the other
    layers. notes: sentences about how it was measured.
    """

    quantized: tuple[LayerError, ...]
    kept: tuple[LayerPlan, ...]
    notes: tuple[str, ...] = ()

    @property
    def effect(self) -> float | None:
        """The relative L2 of the final latent that all layers are expected to make together; None
        where it was not measured."""
        effects = [each.effect for each in self.quantized if each.effect is not None]
        return in_all(effects) if effects else None

    def to_dict(self) -> dict:
        """Plain values, for JSON."""
        return {
            "effect": self.effect,
            "notes": list(self.notes),
            "quantized": [each.to_dict() for each in self.quantized],
            "kept": [layer.to_dict() for layer in self.kept],
        }

    def to_json(self) -> str:
        """``to_dict`` as JSON text."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False)

    def to_markdown(self) -> str:
        """The notes as sentences, and a table with a row for each layer: the quantized ones, then
        the kept."""
        rows = [COLUMNS, ["---"] + ["---:"] * 4 + ["---"] * 2]
        rows += [*map(_measured_row, self.quantized), *map(_kept_row, self.kept)]
        if self.effect is None:
            rows = [[row[0], *row[2:]] for row in rows]
        table = map(_row, rows)
        return "\n".join([self.summary(), "", *(f"- {note}" for note in self.notes), "", *table])

    def summary(self) -> str:
        """One line: how many layers, their bytes, and the worst of them."""
        stored = sum(each.layer.bytes_after for each in self.quantized)
        before = sum(each.layer.bytes_before for each in self.quantized)
        line = (
            f"{len(self.quantized)} of {len(self.quantized) + len(self.kept)} layers quantized, "
            f"{before / MIB:.1f} -> {stored / MIB:.1f} MiB"
        )
        first = next(iter(self.quantized), None)
        if first is not None and first.effect is not None:
            return (
                f"{line}; expected change of the final latent {self.effect:.4f}, most by "
                f"{first.layer.name}, {first.effect:.4f}"
            )
        if first is None or first.worst < 0:
            return line
        what = "weight" if first.output is None else "output"
        return f"{line}; worst {what}: {first.layer.name}, relative L2 {first.worst:.4f}"


def layer_table(
    layers: Iterable[LayerPlan], errors: Iterable[LayerError], notes: Iterable[str] = ()
) -> LayerTable:
    """The table of ``layers``; ``errors`` belong to the quantized ones among them."""
    ranked = sorted(errors, key=lambda each: each.layer.name)
    ranked.sort(key=lambda each: each.rank, reverse=True)
    measured = {each.layer.name for each in ranked}
    kept = (layer for layer in layers if layer.name not in measured)
    return LayerTable(tuple(ranked), tuple(kept), tuple(notes))


def _measured_row(each: LayerError) -> list[str]:
    layer = each.layer
    size = f"{layer.bytes_before / MIB:.2f} -> {layer.bytes_after / MIB:.2f}"
    reason = layer.reason if layer.action == QUANTIZE else ""
    effect = "-" if each.effect is None else f"{each.effect:.5f}"
    errors = (effect, _cell(each.output), _cell(each.weight))
    return [layer.name, *errors, size, each.format, reason]


def _kept_row(layer: LayerPlan) -> list[str]:
    return [layer.name, *["-"] * 3, f"{layer.bytes_after / MIB:.2f}", layer.dtype, layer.reason]


def _cell(error: Error | None) -> str:
    return "-" if error is None else f"{error.relative_l2:.4f}"


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
