"""The parts of a converted file, made one at a time, and its metadata.

Tested by tests/quant_core/conversion/test_convert.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from ..formats import QuantizedWeight
from ..planning.plan import LayerPlan, Plan
from ..rounding import CalibratedRounding, shifted_bias
from ..storage import (
    PREFIX,
    Part,
    StoredLayer,
    TensorSpec,
    quantized_part,
    stock_marker,
    stock_metadata,
    write_file,
)
from .metadata import bytes_to_hash, inheritable, plan_metadata, source_metadata
from .source import ModelFile


def file_parts(
    model: ModelFile,
    plan: Plan,
    private: bool,
    quantize: Callable[[LayerPlan], QuantizedWeight],
    rounds: CalibratedRounding | None,
) -> Iterator[Part]:
    """What the file holds, in the order of the source, so that its disk is read from start to end;
    but biases last that the rounding of their layer may shift."""
    prefix = model.model.prefix
    layers = {model.weight_name(layer.name): layer for layer in plan.quantized}
    named = {f"{prefix}{layer.name}.bias": layer.name for layer in plan.quantized}
    biases = {name: layer for name, layer in named.items() if name in model.files.specs}
    for name, spec in model.files.specs.items():
        layer = layers.get(name)
        if rounds is not None and name in biases:
            continue
        if layer is None:
            yield Part((spec,), partial(_read, model, name))
        else:
            stored = StoredLayer(prefix + layer.name, layer.format, layer.shape)
            yield quantized_part(stored, partial(quantize, layer), private)
    for name, layer in biases.items() if rounds is not None else ():
        yield Part((model.files.specs[name],), partial(_shifted, model, name, layer, rounds))


def _shifted(
    model: ModelFile, name: str, layer: str, rounds: CalibratedRounding
) -> dict[str, torch.Tensor]:
    bias = model.files.read(name)
    shift = rounds.bias_shifts.get(layer)
    return {name: bias if shift is None else shifted_bias(bias, shift)}


def _read(model: ModelFile, name: str) -> dict[str, torch.Tensor]:
    return {name: model.files.read(name)}


def file_metadata(model: ModelFile, plan: Plan, private: bool) -> dict[str, str]:
    """The file's metadata, but for the source's hash, which takes reading it."""
    metadata = plan_metadata(plan, inheritable(model.files.metadata))
    if private:
        return metadata
    prefix = model.model.prefix
    layers = {
        prefix + layer.name: StoredLayer(prefix + layer.name, layer.format, layer.shape)
        for layer in plan.quantized
    }
    markers = {name: stock_marker(layer.format) for name, layer in layers.items()}
    return metadata | stock_metadata(markers, layers)


def write_parts(
    model: ModelFile,
    parts: list[Part],
    metadata: dict[str, str],
    private: bool,
    target: Path,
    overwrite: bool,
    on_bytes: Callable[[int, int], None] | None,
) -> int:
    """Writes ``parts`` to ``target`` and returns the bytes of the file; see ``write_file``."""
    prefix = PREFIX if private else ""
    specs = [_renamed(spec, prefix) for part in parts for spec in part.specs]
    source = str(model.path)
    total = bytes_to_hash(source) + 2 * sum(spec.nbytes for spec in specs)
    done = 0

    def count(size: int) -> None:
        nonlocal done
        done += size
        if on_bytes is not None:
            on_bytes(done, total)

    tensors = ((prefix + name, tensor) for part in parts for name, tensor in part.make().items())
    metadata = metadata | source_metadata(source, count)
    return write_file(target, specs, tensors, metadata, overwrite=overwrite, on_bytes=count)


def _renamed(spec: TensorSpec, prefix: str) -> TensorSpec:
    """``spec`` with ``prefix`` before its name."""
    return replace(spec, name=prefix + spec.name)
