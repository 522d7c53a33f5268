"""What a file of a quantized model consists of, each tensor made when its turn comes.

Tested by tests/quant_core/storage/test_stock.py.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from ..formats import Format, QuantizedWeight
from .header import TensorSpec
from .stock import METADATA as STOCK_LAYERS
from .stock import STOCK_MARKER
from .stored_layer import LAYERS, StoredLayer, marker_name, marker_tensor

Tensors = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Part:
    """One layer's weight, or one other tensor. specs: what ``make`` will return, in its order."""

    specs: tuple[TensorSpec, ...]
    make: Callable[[], Tensors]


def stock_marker(fmt: Format, dimensions: int = 2) -> dict[str, Any] | None:
    """ComfyUI's marker for a weight of ``fmt``, or None where it has no such format.

    dimensions: of the weight. ComfyUI reads no quantized convolution.
    """
    return fmt.stock_marker() if dimensions == 2 else None


def quantized_part(
    layer: StoredLayer, quantize: Callable[[], QuantizedWeight], private: bool
) -> Part:
    """The tensors of a quantized layer with its marker.

    quantize: makes the weight when it is written. private: the marker is ours, otherwise
    ComfyUI's, which the layer's format must have.
    """
    if private:
        name, values = marker_name(layer.name), layer.to_dict()
    else:
        name = f"{layer.name}.{STOCK_MARKER}"
        values = stock_marker(layer.format, len(layer.shape))
    told = marker_tensor(values)

    def make() -> Tensors:
        return {**layer.tensors(quantize()), name: told}

    return Part((*layer.specs.values(), TensorSpec(name, told.dtype, tuple(told.shape))), make)


def stock_metadata(
    markers: Mapping[str, Mapping[str, Any]], layers: Mapping[str, StoredLayer]
) -> dict[str, str]:
    """The metadata of a file in ComfyUI's formats.

    markers: ComfyUI's marker of every quantized layer, by name. layers: what this pack knows of
    those that are its own.
    """
    return {
        STOCK_LAYERS: json.dumps({"format_version": "1.0", "layers": markers}),
        LAYERS: json.dumps({name: layer.to_dict() for name, layer in layers.items()}),
    }
