"""Quantized layers in a file: their tensors' names, and the marker that tells the format.

A layer L is the tensors ``L.weight`` (the codes), ``L.weight_scale`` and what else its format has:
``L.weight_zero_point``, ``L.weight_scale_2``, ``L.input_scale``. How to read them stands in a JSON
object: the format's own values and the weight's shape. In a file of ours it is the tensor
``L.graphquant``, and every name of the file starts with ``graphquant.``, so that a ComfyUI without
this pack finds no model in it where it would load wrong weights. In a file of ComfyUI's formats the
objects stand in the metadata, as
``graphquant.layers``, beside ComfyUI's own markers.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch

from ..formats import Format, QuantizedWeight, format_from_dict
from ..formats.base import PARTS
from .checks import fault, read_json
from .header import TensorSpec
from .reader import TensorFiles

MARKER = "graphquant"
PREFIX = f"{MARKER}."
LAYERS = f"{PREFIX}layers"
# ComfyUI's names, so that a part that it knows needs no other.
ENTRIES = {part: f"weight_{part}" for part in PARTS} | {
    "qdata": "weight",
    "input_scale": "input_scale",
}


def entry(fmt: Format, part: str) -> str:
    """What a file calls the ``part`` of a layer of ``fmt``, after the layer's name."""
    return fmt.entries.get(part, ENTRIES[part])


# No format stores a weight in less than a bit.
_MAX_WEIGHTS_PER_BYTE = 8


@dataclass(frozen=True)
class StoredLayer:
    """One quantized weight of a file of ours. shape: the weight's own, [N, K] or [N, ...]."""

    name: str
    format: Format
    shape: tuple[int, ...]

    @property
    def specs(self) -> dict[str, TensorSpec]:
        """The tensor of each part (qdata, scale, ...), under the layer's name."""
        return {
            part: TensorSpec(f"{self.name}.{entry(self.format, part)}", dtype, shape)
            for part, (dtype, shape) in stored_parts(self.format, self.shape).items()
        }

    def to_dict(self) -> dict[str, Any]:
        """The values of the layer's marker."""
        return {**self.format.to_dict(), "shape": list(self.shape)}

    def tensors(self, weight: QuantizedWeight) -> dict[str, torch.Tensor]:
        """The tensors of ``weight`` by their names in the file."""
        return {self.specs[part].name: tensor for part, tensor in weight.tensors.items()}

    def read(self, files: TensorFiles, prefix: str, dtype: torch.dtype) -> QuantizedWeight:
        """Reads the weight from ``files``, whose names begin with ``prefix``. dtype: what it
        computes in."""
        parts = {part: files.read(prefix + spec.name) for part, spec in self.specs.items()}
        return QuantizedWeight.of_parts(self.format, parts, self.shape, dtype)


@lru_cache(maxsize=1024)
def stored_parts(
    fmt: Format, shape: tuple[int, ...]
) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
    """``fmt.parts(shape)``, kept."""
    return fmt.parts(shape)


def find_layers(files: TensorFiles) -> tuple[str, dict[str, StoredLayer]]:
    """The prefix of the file's names, and its quantized layers of ours by name (there may be none).

    StorageError: a marker that is not JSON, a format that this version does not know, tensors that
    are missing or not as the format has them.
    """
    prefix = PREFIX if any(name.startswith(PREFIX) for name in files.specs) else ""
    if prefix:
        described = _markers(files, prefix)
    else:
        described = read_json(files, LAYERS, files.metadata.get(LAYERS, "{}"))
    return prefix, {name: _layer(files, prefix, name, values) for name, values in described.items()}


def marker_name(layer: str) -> str:
    """The name of the tensor that marks ``layer``."""
    return f"{layer}.{MARKER}"


def marker_tensor(values: Mapping[str, Any]) -> torch.Tensor:
    """``values`` as JSON text in a tensor, uint8 [bytes]."""
    return torch.frombuffer(bytearray(json.dumps(values).encode()), dtype=torch.uint8)


def _markers(files: TensorFiles, prefix: str) -> dict[str, Any]:
    strangers = [name for name in files.specs if not name.startswith(prefix)]
    if strangers:
        raise fault(files, f"mixes names with and without {prefix!r}: {strangers[0]!r}")
    ending = marker_name("")
    return {
        name[len(prefix) : -len(ending)]: read_json(files, name)
        for name in files.specs
        if name.endswith(ending)
    }


def _layer(files: TensorFiles, prefix: str, name: str, values: Any) -> StoredLayer:
    """The layer as ``values`` describe it, where the file bears them out."""
    codes = files.specs.get(f"{prefix}{name}.weight")
    if codes is None:
        raise fault(files, f"marks {name} as quantized, but has no {name}.weight")
    shape = values.get("shape") if isinstance(values, dict) else None
    if not _plausible(shape, codes):
        raise fault(files, f"marks {name} with the shape {shape!r}, which can't be")
    layer = StoredLayer(name, _format(files, name, values), tuple(shape))
    for spec in _specs(files, layer).values():
        found = files.specs.get(prefix + spec.name)
        if found is None:
            raise fault(files, f"lacks {spec.name}, which {layer.format} has")
        if (found.dtype, found.shape) != (spec.dtype, spec.shape):
            raise fault(
                files,
                f"has {spec.name} as {found.dtype} {list(found.shape)}, where {layer.format} of "
                f"{list(shape)} has {spec.dtype} {list(spec.shape)}",
            )
    return layer


def _plausible(shape: Any, codes: TensorSpec) -> bool:
    return (
        isinstance(shape, list)
        and 2 <= len(shape) <= 5
        and all(type(side) is int and side > 0 for side in shape)
        and math.prod(shape) <= _MAX_WEIGHTS_PER_BYTE * codes.nbytes
    )


def _format(files: TensorFiles, name: str, values: dict[str, Any]) -> Format:
    try:
        return format_from_dict({key: value for key, value in values.items() if key != "shape"})
    except (KeyError, TypeError, ValueError) as error:
        raise fault(
            files, f"stores {name} in the format {values!r}, which this version does not know"
        ) from error


def _specs(files: TensorFiles, layer: StoredLayer) -> dict[str, TensorSpec]:
    try:
        return layer.specs
    except Exception as error:  # a hostile file's values reach the format's arithmetic unchecked
        raise fault(
            files, f"stores {layer.name} as {layer.format!r}, which is impossible"
        ) from error
