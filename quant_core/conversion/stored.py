"""The quantized layers of a file, ours and ComfyUI's, as something that can be dequantized.

Tested by tests/quant_core/conversion/test_convert.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ..formats import MXFP8, NVFP4, Float8, Int8
from ..storage import StoredLayer, TensorFiles, check_stock_layers, find_layers
from ..storage.stock import markers

# The formats that ComfyUI reads too, each by what its marker calls it.
_STOCK = (
    Float8("float8_e4m3fn", "per-tensor"),
    Float8("float8_e5m2", "per-tensor"),
    Int8("per-row"),
    Int8("per-tensor"),
    MXFP8(),
    NVFP4(),
)


@dataclass(frozen=True)
class StoredLayers:
    """What is quantized in a file.

    prefix: what all names of a file of ours begin with. layers: those that can be dequantized, by
    name without the prefix. unknown: the others, by name, and what ComfyUI calls their format.
    claimed: every tensor that belongs to a quantized layer, by its name in the file.
    """

    prefix: str
    layers: dict[str, StoredLayer]
    unknown: dict[str, str]
    claimed: frozenset[str]


def stored_layers(files: TensorFiles) -> StoredLayers:
    """The quantized layers of ``files``, checked. StorageError where a marker is wrong."""
    prefix, layers = find_layers(files)
    named = check_stock_layers(files, {prefix + name for name in layers})
    values = markers(files)
    unknown: dict[str, str] = {}
    for name, told in named.items():
        if name.removeprefix(prefix) in layers:
            continue
        layer = _stock_layer(files, name, values.get(name, {"format": told}))
        if layer is None:
            unknown[name] = told
        else:
            layers[name] = layer
    names = [prefix + name for name in layers] + list(unknown)
    return StoredLayers(prefix, layers, unknown, frozenset(_claimed(files, names)))


def _stock_layer(files: TensorFiles, name: str, values: dict[str, Any]) -> StoredLayer | None:
    """The layer as one of our formats, where one has exactly these tensors."""
    rows, *rest = files.specs[f"{name}.weight"].shape
    shapes = ((rows, *rest), (rows, *rest[:-1], 2 * rest[-1])) if rest else ()
    for fmt in _STOCK:
        if fmt.stock_marker()["format"] != values["format"] or "convrot" in values:
            continue
        for shape in shapes:
            layer = StoredLayer(name, fmt, shape)
            if _holds(files, layer):
                return layer
    return None


def _holds(files: TensorFiles, layer: StoredLayer) -> bool:
    found = (files.specs.get(spec.name) for spec in layer.specs.values())
    wanted = layer.specs.values()
    return all(
        has is not None and (has.dtype, has.shape) == (spec.dtype, spec.shape)
        for has, spec in zip(found, wanted, strict=True)
    )


def _claimed(files: TensorFiles, layers: list[str]) -> Iterator[str]:
    """Every tensor of a quantized layer but its bias: codes, scales and markers."""
    known = frozenset(layers)
    for name in files.specs:
        layer, _, part = name.rpartition(".")
        if layer in known and part != "bias":
            yield name
