"""Is a quantized file whole, and how far is it from the model that it was made of?

Tested by tests/quant_core/cli/test_main.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import torch

from ..measure.relative_error import error_of
from ..presets import recognise
from ..storage import TensorFiles
from .source import find_file
from .stored import StoredLayers, stored_layers

_RELATIVE_L2_BOUND = 0.75


@dataclass(frozen=True)
class VerifiedLayer:
    """One quantized layer. error: relative L2 of its weight, None without a reference."""

    name: str
    format: str
    error: float | None = None


@dataclass
class Verification:
    """faults: what is wrong, in sentences; a file without any is whole. layers: those quantized.
    equal: tensors that are the reference's bit by bit."""

    path: Path
    reference: Path | None
    tensors: int
    layers: list[VerifiedLayer] = field(default_factory=list)
    equal: int = 0
    faults: list[str] = field(default_factory=list)

    def worst(self, count: int) -> list[VerifiedLayer]:
        """The layers of the largest errors."""
        known = [layer for layer in self.layers if layer.error is not None]
        return sorted(known, key=lambda layer: -layer.error)[:count]

    def to_dict(self) -> dict:
        """Plain values only."""
        return {
            "path": str(self.path),
            "reference": None if self.reference is None else str(self.reference),
            "tensors": self.tensors,
            "equal": self.equal,
            "faults": self.faults,
            "layers": [vars(layer) for layer in self.layers],
        }


def verify_file(
    path: str | Path,
    reference: str | Path | None = None,
    on_layer: Callable[[int, int], None] | None = None,
) -> Verification:
    """Read every tensor of ``path``, and compare it with the model ``reference``.

    Whole is a file whose markers hold, whose quantized layers decode to finite weights, and, with a
    reference, that has every tensor of it: quantized, or bit by bit. Names count from where the
    model begins, so the reference may be a whole checkpoint. on_layer: (layers done, in all).

    StorageError where a file can't be read at all.
    """
    path = find_file(Path(path))
    with TensorFiles(path) as files:
        stored = stored_layers(files)
        result = Verification(path, None, len(files.specs))
        if reference is None:
            _verify_alone(files, stored, result, on_layer)
            return result
        result.reference = find_file(Path(reference))
        with TensorFiles(result.reference) as originals:
            _compare(files, stored, originals, result, on_layer)
    return result


def _verify_alone(
    files: TensorFiles,
    stored: StoredLayers,
    result: Verification,
    on_layer: Callable[[int, int], None] | None,
) -> None:
    for done, (name, layer) in enumerate(stored.layers.items(), 1):
        weight = layer.read(files, stored.prefix, torch.float32).dequantize()
        if not torch.isfinite(weight).all():
            result.faults.append(f"{name} decodes to NaN or infinity.")
        result.layers.append(VerifiedLayer(name, str(layer.format)))
        if on_layer is not None:
            on_layer(done, len(stored.layers))
    result.layers += [VerifiedLayer(name, told) for name, told in stored.unknown.items()]
    for name in files.specs:
        if name not in stored.claimed:
            files.read(name)


def _compare(
    files: TensorFiles,
    stored: StoredLayers,
    originals: TensorFiles,
    result: Verification,
    on_layer: Callable[[int, int], None] | None,
) -> None:
    ours = {name.removeprefix(stored.prefix): name for name in files.specs}
    begins = _beginning(ours), _beginning(originals.specs)
    wanted = {begins[0] + name.removeprefix(begins[1]): name for name in originals.specs}
    if begins[1] and not begins[0]:  # the model alone, against its checkpoint
        wanted = {new: old for new, old in wanted.items() if old.startswith(begins[1])}
    unused = set(ours) - {name.removeprefix(stored.prefix) for name in stored.claimed}
    for done, (name, original) in enumerate(wanted.items(), 1):
        layer = name.removesuffix(".weight")
        if name.endswith(".weight") and layer in stored.layers:
            result.layers.append(_compared(files, stored, layer, originals.read(original), result))
        elif layer in stored.unknown:
            result.layers.append(VerifiedLayer(layer, stored.unknown[layer]))
        elif name not in ours:
            result.faults.append(f"{name} of the reference is missing.")
        elif _same(files.read(ours[name]), originals.read(original)):
            result.equal += 1
        else:
            result.faults.append(f"{name} is neither quantized nor the reference's.")
        unused.discard(name)
        if on_layer is not None:
            on_layer(done, len(wanted))
    result.faults += [f"{name} is not in the reference." for name in sorted(unused)]


def _beginning(names: Iterable[str]) -> str:
    """The prefix of the model's names in the file."""
    return recognise(dict.fromkeys(names, ())).prefix


def _compared(
    files: TensorFiles,
    stored: StoredLayers,
    name: str,
    original: torch.Tensor,
    result: Verification,
) -> VerifiedLayer:
    layer = stored.layers[name]
    if tuple(original.shape) != layer.shape:
        shapes = f"{list(layer.shape)}, the reference's {list(original.shape)}"
        result.faults.append(f"{name} has the shape {shapes}.")
        return VerifiedLayer(name, str(layer.format))
    found = error_of(layer.read(files, stored.prefix, torch.float32).dequantize(), original)
    found = found.relative_l2
    if not found < _RELATIVE_L2_BOUND:
        result.faults.append(f"{name} differs from the reference by {found:.3g}: another model?")
    return VerifiedLayer(name, str(layer.format), found)


def _same(found: torch.Tensor, original: torch.Tensor) -> bool:
    """Bit by bit, or of another float dtype with the same values."""
    if found.shape != original.shape:
        return False
    if found.dtype == original.dtype:
        pair = (tensor.reshape(-1).view(torch.uint8) for tensor in (found, original))
        return torch.equal(*pair)
    return torch.equal(found.float(), original.float())
