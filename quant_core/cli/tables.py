"""Results in words, for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..conversion.estimation import Estimate
from ..conversion.inspection import Inspection
from ..conversion.readers import OURS, STOCK
from ..conversion.verification import Verification
from ..report import MIB

_WORST = 10


def inspection(found: Inspection, every_layer: bool = False) -> str:
    """Formats by layer, bytes, and what reads the file."""
    model = found.model
    lines = [
        f"{found.path.name}: {found.tensors} tensors, {found.nbytes / MIB:.1f} MiB",
        f"{model.component} {model.architecture}, preset {model.preset or 'generic'}",
        *([f"names begin with {model.prefix}"] if model.prefix else []),
        "",
    ]
    rows = [
        (str(count), name, f"{size / MIB:.1f} MiB")
        for name, (count, size) in found.by_format().items()
    ]
    lines += _table(("layers", "format", "size"), [*rows, ("", "other", _mib(found.other_bytes))])
    if every_layer:
        layers = [
            (layer.name, layer.format, " x ".join(map(str, layer.shape)), _mib(layer.nbytes))
            for layer in found.layers
        ]
        lines += ["", *_table(("layer", "format", "shape", "size"), layers)]
    lines += ["", *(f"read by: {reader}" for reader in found.readers)]
    lines += [f"{key}: {value}" for key, value in found.notes.items()]
    return "\n".join(lines)


def estimates(found: Sequence[Estimate]) -> str:
    """Methods by size, the largest first."""
    possible = sorted((e for e in found if not e.problem), key=lambda e: -e.nbytes)
    rows = [
        (e.method, _mib(e.nbytes), f"{e.bits:.2f}", str(e.layers), STOCK if e.stock else OURS)
        for e in possible
    ]
    lines = _table(("method", "size", "bits", "layers", "format"), rows)
    return "\n".join(lines + [f"{e.method}: {e.problem}" for e in found if e.problem])


def verification(found: Verification, every_layer: bool = False) -> str:
    """Whether the file is whole, and the layers of the largest errors."""
    state = "is whole" if not found.faults else f"has {len(found.faults)} faults"
    lines = [
        f"{found.path.name} {state}: {found.tensors} tensors, {len(found.layers)} layers quantized"
        + (f", {found.equal} tensors equal to {found.reference.name}'s" if found.reference else "")
    ]
    lines += [f"- fault: {fault}" for fault in found.faults]
    shown = found.worst(len(found.layers) if every_layer else _WORST)
    if shown:
        rows = [(layer.name, layer.format, f"{layer.error:.4f}") for layer in shown]
        lines += ["", *_table(("layer", "format", "relative L2"), rows)]
    return "\n".join(lines)


def _mib(size: int) -> str:
    return f"{size / MIB:.1f} MiB"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A table of text whose columns are as wide as their widest value."""
    lines = [head, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return [
        "  ".join(f"{value:<{width}}" for value, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]
