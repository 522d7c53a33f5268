"""A file in ComfyUI's models folder to a MODEL.

ComfyUI's own loader does all that it can: it recognises the model and reads what is not quantized.
The layers of our formats it sees as placeholders, and they are attached when it is done, so that
their full-precision weights never exist.
"""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import comfy.sd
import comfy.utils
import torch
from comfy.model_patcher import ModelPatcher

from ...quant_core.detect import FLOAT8_DTYPES
from ...quant_core.errors import StorageError
from ...quant_core.report import MIB
from ...quant_core.storage import (
    StoredLayer,
    TensorFiles,
    check_stock_layers,
    find_layers,
    marker_name,
)
from .file_report import FileReport, model_report
from .patcher import register_rebuild, with_weights
from .placeholder import Placeholder
from .provenance import note_provenance, read_provenance
from .quantized_layer import STOCK_MARKER
from .saved_tensors import MODEL


def load_quantized_model(path: Path) -> tuple[ModelPatcher, FileReport]:
    """The model in ``path``: a safetensors file, or the index of a sharded one.

    Reads what Save Quantized Model wrote, bit by bit, and everything that ComfyUI reads: plain,
    plain FP8 and its own quantized formats. All headers and markers are checked before anything is
    loaded; StorageError says what is wrong with the file.
    """
    started = time.perf_counter()
    with TensorFiles(path) as files:
        prefix, layers = find_layers(files)
        stock = check_stock_layers(files, {prefix + name for name in layers})
        ours = bool(prefix or layers)
        patcher = _load_ours(files, prefix, layers) if ours else _load_stock(files)
    source = read_provenance(files.metadata, None if ours else str(path))
    note_provenance(patcher, source)
    seconds = time.perf_counter() - started
    size = sum(spec.nbytes for spec in files.specs.values())
    report = model_report(patcher, source, seconds)
    if not layers:
        report = dataclasses.replace(report, kernel="ComfyUI's own")
    return patcher, FileReport(
        headline=f"Loaded {path.name}: {size / MIB:.1f} MiB in {seconds:.1f} s.",
        path=path,
        report=report,
        facts=tuple(_facts(files, layers, {k: v for k, v in stock.items() if k not in layers})),
    )


def _load_ours(
    files: TensorFiles, prefix: str, layers: Mapping[str, StoredLayer]
) -> ModelPatcher:
    state = {name: files.read(prefix + name) for name in _other_names(files, prefix, layers)}
    dtype = _common_dtype(state)
    state |= {f"{name}.weight": Placeholder(la.shape, dtype) for name, la in layers.items()}
    names = set(state)
    metadata = {k: v for k, v in files.metadata.items() if k != "_quantization_metadata"}
    patcher = comfy.sd.load_diffusion_model_state_dict(state, metadata=metadata)
    if patcher is None:
        raise StorageError(
            f"ComfyUI does not recognise the model in {files.path.name}. Update ComfyUI."
        )
    _require_complete(files, patcher, names, layers)
    compute_dtype = patcher.model.get_dtype_inference()
    weights = {
        MODEL + name: layer.read(files, prefix, compute_dtype) for name, layer in layers.items()
    }
    return with_weights(patcher, weights, compute_dtype)


def _other_names(
    files: TensorFiles, prefix: str, layers: Mapping[str, StoredLayer]
) -> Iterator[str]:
    """The tensors that ComfyUI reads: all but the parts and markers of our layers."""
    ours = {spec.name for layer in layers.values() for spec in layer.specs.values()}
    ours |= {marker_name(name) for name in layers} | {f"{name}.{STOCK_MARKER}" for name in layers}
    names = (name.removeprefix(prefix) for name in files.specs)
    return (name for name in names if name not in ours)


def _common_dtype(state: Mapping[str, torch.Tensor]) -> torch.dtype:
    """The dtype of most unquantized weights: by it ComfyUI chooses what to compute in."""
    counts: Counter[torch.dtype] = Counter()
    for tensor in state.values():
        if tensor.is_floating_point() and tensor.dtype.itemsize > 1:
            counts[tensor.dtype] += tensor.numel()
    return counts.most_common(1)[0][0] if counts else torch.bfloat16


def _require_complete(
    files: TensorFiles, patcher: ModelPatcher, names: set[str], layers: Mapping[str, StoredLayer]
) -> None:
    """ComfyUI only warns of what a file lacks, and leaves those weights as the memory was."""
    model = patcher.model.diffusion_model
    parameters = dict(model.named_parameters(remove_duplicate=False))
    missing = sorted(parameters.keys() - names)
    if missing:
        raise StorageError(
            f"{files.path.name} lacks {len(missing)} weights of {type(model).__name__}, such as "
            f"{missing[0]}. Download or save it again."
        )
    for name, layer in layers.items():
        weight = parameters.get(f"{name}.weight")
        if weight is None or tuple(weight.shape) != layer.shape:
            raise StorageError(
                f"{files.path.name} has a quantized {name} of {list(layer.shape)}, which "
                f"{type(model).__name__} has not. Download or save it again."
            )


def _load_stock(files: TensorFiles) -> ModelPatcher:
    if len(files.files) == 1 and files.files[0].path == files.path:
        return comfy.sd.load_diffusion_model(str(files.path))
    state: dict[str, torch.Tensor] = {}
    for file in files.files:
        state |= comfy.utils.load_torch_file(str(file.path))
    patcher = comfy.sd.load_diffusion_model_state_dict(state, metadata=dict(files.metadata))
    if patcher is None:
        raise StorageError(
            f"ComfyUI does not recognise the model in {files.path.name}. Choose another file."
        )
    register_rebuild(patcher)
    return patcher


def _facts(
    files: TensorFiles, layers: Mapping[str, StoredLayer], stock: Mapping[str, str]
) -> Iterator[str]:
    if len(files.files) > 1:
        yield f"{len(files.files)} shards."
    for name, count in Counter(str(layer.format) for layer in layers.values()).items():
        yield f"{count} layers of {name}, bit by bit as they were saved."
    for name, count in Counter(stock.values()).items():
        yield f"{count} layers of ComfyUI's {name}, read by ComfyUI."
    plain = [name for name, spec in files.specs.items() if spec.dtype in FLOAT8_DTYPES]
    if plain and not layers and not stock:
        yield f"{len(plain)} tensors of plain FP8, without scales, read by ComfyUI."
    for key in ("method", "preset", "source", "source_sha256", "version"):
        value = files.metadata.get(f"graphquant.{key}")
        if value:
            yield f"{key}: {value}"
