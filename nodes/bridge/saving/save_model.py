"""A MODEL to a file in ComfyUI's models folder."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import comfy.model_management
import comfy.utils
import torch
from comfy.model_patcher import ModelPatcher

from ....quant_core.conversion.metadata import bytes_to_hash
from ....quant_core.errors import StorageError, UnknownNameError
from ....quant_core.report import MIB
from ....quant_core.storage import (
    PREFIX,
    TensorSpec,
    holds_already,
    refuse_to_replace,
    stock_marker,
    stock_metadata,
    write_file,
)
from ..files.file_report import FileReport, model_report
from ..files.model_folder import AUTO, FILE_FORMATS, OURS, STOCK
from ..files.provenance import file_metadata, inherited, provenance_of
from ..loading.load_model import require_loadable
from ..model.float_weight import unload
from ..tensor.layout import is_ours
from .file_recognition import is_read_packed, require_recognition
from .saved_tensors import ModelTensors, SavedTensors, collect_tensors, model_tensors


def save_quantized_model(
    patcher: ModelPatcher, target: Path, file_format: str = AUTO, overwrite: bool = False
) -> FileReport:
    """Write the diffusion model of ``patcher`` to ``target``, layer by layer.

    file_format: "stock" is ComfyUI's own formats, which load without this pack, "graphquant" ours,
    "auto" stock where every layer has such a format. Patches that wait on the patcher are baked in.
    The patcher is unloaded first, so that a loaded model gives the same bytes as any other.

    StorageError: nothing is quantized, a layer has no stock format, ComfyUI would take the file for
    another model, and what ``write_file`` raises. Cancelling leaves no file.
    """
    started = time.perf_counter()
    # A file of that name may be this very one, which is known once its header is.
    if not target.is_file():
        refuse_to_replace(target, overwrite)
    unload(patcher)
    tensors = model_tensors(patcher)
    private = _is_private(patcher, tensors, file_format)
    saved = collect_tensors(patcher, tensors, private)
    prefix = PREFIX if private else ""
    specs = [_prefixed(prefix, spec) for part in saved.parts for spec in part.specs]
    provenance = provenance_of(patcher)
    on_bytes = _progress(2 * sum(spec.nbytes for spec in specs) + bytes_to_hash(provenance.source))
    metadata = file_metadata(provenance, on_bytes)
    if not private:
        metadata |= stock_metadata(saved.stock, saved.layers)
    require_recognition(patcher.model, tensors, metadata)
    there = holds_already(target, specs, _tensors(saved, prefix), metadata)
    if not there:
        write_file(
            target,
            specs,
            _tensors(saved, prefix),
            metadata,
            overwrite=overwrite,
            on_bytes=on_bytes,
            check=partial(require_loadable, name=target.name),
        )
    seconds = time.perf_counter() - started
    return FileReport(
        headline=_headline(target, there, seconds),
        path=target,
        report=model_report(patcher, provenance, seconds),
        facts=(*_facts(saved, private), *_hidden(saved, private and file_format == AUTO)),
        warnings=tuple(_not_in_the_file(patcher)),
        written=not there,
        loader="Load Quantized Model" if private else "Load Diffusion Model",
    )


def _headline(target: Path, there: bool, seconds: float) -> str:
    mib = f"{target.stat().st_size / MIB:.1f} MiB"
    if there:
        return f"{target.name} is there already, byte by byte: nothing was written ({mib})."
    return f"Saved {target.name}: {mib}, every tensor verified, in {seconds:.1f} s."


def _is_private(patcher: ModelPatcher, model: ModelTensors, file_format: str) -> bool:
    if file_format not in FILE_FORMATS:
        raise UnknownNameError("file format", file_format, FILE_FORMATS)
    weights = model.weights
    if not weights:
        raise StorageError(
            "No layer of this model is quantized. Connect the output of Quantize Model."
        )
    ours = {name: weight for name, weight in weights.items() if is_ours(weight)}
    unknown = {n: w for n, w in ours.items() if stock_marker(w._params.format, w.dim()) is None}
    if file_format == STOCK and unknown:
        name, weight = next(iter(unknown.items()))
        raise StorageError(
            f"ComfyUI has no format for {len(unknown)} of {len(weights)} quantized layers, such as "
            f"{name} ({weight._params.format}). Save as graphquant, or quantize again: fp8 with "
            "granularity per-tensor, or int8."
        )
    if file_format == OURS or unknown:
        return True
    if is_read_packed(patcher.model, model, inherited(provenance_of(patcher))):
        return False
    if file_format == STOCK:
        raise StorageError(
            "ComfyUI would not recognise this model in its own format: it goes by the width of a "
            "layer that holds two weights in a byte. Save as graphquant, or choose 8 bits."
        )
    return True


def _prefixed(prefix: str, spec: TensorSpec) -> TensorSpec:
    return TensorSpec(prefix + spec.name, spec.dtype, spec.shape)


def _tensors(saved: SavedTensors, prefix: str) -> Iterator[tuple[str, torch.Tensor]]:
    for part in saved.parts:
        for name, tensor in part.make().items():
            yield prefix + name, tensor


def _progress(total: int) -> Callable[[int], None]:
    bar = comfy.utils.ProgressBar(total)

    def on_bytes(count: int) -> None:
        comfy.model_management.throw_exception_if_processing_interrupted()
        bar.update(count)

    return on_bytes


def _facts(saved: SavedTensors, private: bool) -> Iterator[str]:
    if private:
        yield (
            "format graphquant: this pack's own. Load it with Load Quantized Model; a ComfyUI "
            "without this pack finds no model in it."
        )
    else:
        names = ", ".join(sorted({values["format"] for values in saved.stock.values()}))
        yield (
            f"format stock ({names}): Load Diffusion Model reads it without this pack. "
            "Load Quantized Model also computes as this model did."
        )
        formats = {layer.format for layer in saved.layers.values()}
        for needs in sorted({fmt.stock_needs for fmt in formats} - {""}):
            yield f"Without this pack it takes {needs} to read it."
        if any(fmt.stock_rounds_activations for fmt in formats):
            yield "ComfyUI on its own rounds the activations of int8 layers to int8 as well."
    for dtype, count in saved.narrowed.items():
        if count:
            yield (
                f"{count} unquantized tensors are held as float32 and stored as "
                f"{str(dtype).removeprefix('torch.')}, which holds each of their values exactly."
            )
    if saved.patched["quantized"]:
        yield (
            f"LoRA on {saved.patched['quantized']} quantized layers: dequantized, patched, rounded "
            "a second time. Added before Quantize Model it is rounded once."
        )
    if saved.patched["plain"]:
        yield f"LoRA on {saved.patched['plain']} unquantized tensors: added in float32."


def _hidden(saved: SavedTensors, private: bool) -> Iterator[str]:
    """Why a file is this pack's own though ComfyUI has all of its formats."""
    layers = saved.layers.values()
    if private and all(stock_marker(la.format, len(la.shape)) is not None for la in layers):
        yield (
            "ComfyUI has these formats, but would not recognise this model in them: it goes by the "
            "width of a layer that holds two weights in a byte."
        )


def _not_in_the_file(patcher: ModelPatcher) -> Iterator[str]:
    """What other nodes put on the patcher beside weights."""
    options = patcher.model_options
    others = {
        "replaced objects": sorted(patcher.object_patches),
        "injections": sorted(patcher.injections),
        "LoRA hooks": [str(len(patcher.hook_patches))] if patcher.hook_patches else [],
        "weight wrappers": sorted(patcher.weight_wrapper_patches),
        "wrappers": sorted({str(key) for keys in patcher.wrappers.values() for key in keys}),
        "sampling patches": sorted(set(options) - {"transformer_options"})
        + sorted(options["transformer_options"].get("patches", {}))
        + sorted(options["transformer_options"].get("patches_replace", {})),
    }
    for kind, names in others.items():
        if names:
            yield f"Not in the file: {kind} that other nodes set ({', '.join(names)})."
