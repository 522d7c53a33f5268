"""A file in ComfyUI's models folder to a MODEL.

Whose file it is decides the way in: this pack's, another library's, GGUF's or ComfyUI's own.
"""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

import comfy.sd
import comfy.utils
import comfyui_version
import torch
from comfy.model_management import OOM_EXCEPTION, get_torch_device
from comfy.model_patcher import ModelPatcher
from comfy.quant_ops import QUANT_ALGOS

from ....quant_core.detect import FLOAT8_DTYPES
from ....quant_core.errors import StorageError
from ....quant_core.formats import QuantizedWeight
from ....quant_core.hardware import check_fp8_support
from ....quant_core.report import MIB
from ....quant_core.storage import (
    GGUF_SUFFIX,
    SINCE,
    STOCK_MARKER,
    StoredLayer,
    TensorFiles,
    check_stock_layers,
    find_layers,
    marker_name,
)
from ....quant_core.storage.foreign import find_foreign
from ..files.file_report import FileReport, model_report
from ..files.provenance import note_provenance, read_provenance
from ..model.quantize_patcher import register_rebuild
from .building import build_model, model_prefix
from .claimed import require_claimed
from .layers_in_file import Contents, Layer
from .load_foreign import Loaded, load_foreign, load_gguf


def load_quantized_model(path: Path) -> tuple[ModelPatcher, FileReport]:
    """The model in ``path``: a safetensors file, the index of a sharded one, or a GGUF file.

    Reads what Save Quantized Model wrote, bit by bit; what bitsandbytes, torchao, ModelOpt and GGUF
    quantized; and everything that ComfyUI reads: plain, plain FP8 and its own quantized formats.
    All headers and markers are checked before anything is loaded; StorageError says what is wrong
    with the file.
    """
    started = time.perf_counter()
    loaded = load_gguf(path) if path.suffix.lower() == GGUF_SUFFIX else _load_safetensors(path)
    note_provenance(loaded.patcher, loaded.provenance)
    seconds = time.perf_counter() - started
    report = model_report(loaded.patcher, loaded.provenance, seconds)
    if not loaded.layers:
        report = dataclasses.replace(report, kernel="ComfyUI's own")
    return loaded.patcher, FileReport(
        headline=f"Loaded {path.name}: {loaded.size / MIB:.1f} MiB in {seconds:.1f} s.",
        path=path,
        report=report,
        facts=loaded.facts,
    )


def _load_safetensors(path: Path) -> Loaded:
    with TensorFiles(path) as files:
        prefix, layers = find_layers(files)
        foreign = None if prefix or layers else find_foreign(files, _fp8_matmul())
        if foreign:
            return load_foreign(files, foreign)
        stock = check_stock_layers(files, {prefix + name for name in layers})
        ours = bool(prefix or layers)
        require_known(path.name, {k: v for k, v in stock.items() if k not in layers})
        patcher = _load_ours(files, prefix, layers) if ours else _load_stock(files)
        facts = list(_facts(files, layers, {k: v for k, v in stock.items() if k not in layers}))
        if not ours:
            facts += _left_out(require_claimed(files, patcher, stock))
        provenance = read_provenance(files.metadata, None if ours else str(path))
        return Loaded(patcher, provenance, files.nbytes, len(layers), tuple(facts))


def require_known(file: str, stock: Mapping[str, str]) -> None:
    """Raises StorageError where this ComfyUI lacks one of the formats in ``stock``, by layer: its
    own loader would end in a KeyError."""
    unknown = next((name for name in stock.values() if name not in QUANT_ALGOS), None)
    if unknown is None:
        return
    since = SINCE.get(unknown)
    needed = f"ComfyUI {since} or newer" if since else "a ComfyUI that reads it"
    count = Counter(stock.values())[unknown]
    here = comfyui_version.__version__
    raise StorageError(
        f"{file} stores {count} layers as {unknown}, which needs {needed}, and this is {here}. "
        "Update ComfyUI; nothing was loaded."
    )


def _fp8_matmul() -> bool:
    """Whether FP8 products run; True on a CPU, which emulates them with the same numbers."""
    device = get_torch_device()
    return device.type == "cpu" or check_fp8_support(device)


def require_loadable(path: Path, name: str) -> None:
    """Load the file at ``path``, reported under ``name``, as a node does, but without reading the
    numbers of its quantized layers. StorageError where that fails."""
    try:
        with TensorFiles(path) as files, torch.inference_mode():
            prefix, layers = find_layers(files)
            if prefix or layers:
                _load_ours(files, prefix, layers, _read_nothing)
    except StorageError as error:
        told = str(error).replace(path.name, "the file")
        raise StorageError(f"{name} was not kept, because it would not load: {told}") from error


def _read_nothing(layer: StoredLayer, *_) -> QuantizedWeight:
    parts = {
        part: torch.empty(spec.shape, dtype=spec.dtype, device="meta")
        for part, spec in layer.specs.items()
    }
    return QuantizedWeight.of_parts(layer.format, parts, layer.shape, torch.float32)


def _load_ours(
    files: TensorFiles,
    prefix: str,
    layers: Mapping[str, StoredLayer],
    read: Callable[..., QuantizedWeight] = StoredLayer.read,
) -> ModelPatcher:
    """In a whole checkpoint, only the diffusion model. read: as ``StoredLayer.read``."""
    names = set(_other_names(files, prefix, layers))
    inner = model_prefix({*names, *(f"{name}.weight" for name in layers)})
    state = {
        name.removeprefix(inner): files.read(prefix + name)
        for name in names
        if name.startswith(inner)
    }
    metadata = {k: v for k, v in files.metadata.items() if k != "_quantization_metadata"}
    readable = {
        name.removeprefix(inner): Layer(layer.shape, partial(read, layer, files, prefix))
        for name, layer in layers.items()
        if name.startswith(inner)
    }
    return build_model(files.path.name, Contents(state, readable), metadata)


def _other_names(
    files: TensorFiles, prefix: str, layers: Mapping[str, StoredLayer]
) -> Iterator[str]:
    """The tensors that ComfyUI reads: all but the parts and markers of our layers."""
    ours = {spec.name for layer in layers.values() for spec in layer.specs.values()}
    ours |= {marker_name(name) for name in layers} | {f"{name}.{STOCK_MARKER}" for name in layers}
    names = (name.removeprefix(prefix) for name in files.specs)
    return (name for name in names if name not in ours)


def _load_stock(files: TensorFiles) -> ModelPatcher:
    """The model as ComfyUI loads it. StorageError where it knows no such model, or fails."""
    try:
        if len(files.files) == 1 and files.files[0].path == files.path:
            return comfy.sd.load_diffusion_model(str(files.path))
        state: dict[str, torch.Tensor] = {}
        for file in files.files:
            state |= comfy.utils.load_torch_file(str(file.path))
        patcher = comfy.sd.load_diffusion_model_state_dict(state, metadata=dict(files.metadata))
    except OOM_EXCEPTION:
        raise
    except (RuntimeError, LookupError, TypeError, ValueError, AttributeError) as error:
        told = (str(error).splitlines() or [""])[0]
        raise StorageError(
            f"ComfyUI cannot load {files.path.name} ({type(error).__name__}: {told[:200]}). "
            "Choose a file that its own Load Diffusion Model reads, or update ComfyUI."
        ) from error
    if patcher is None:
        raise StorageError(
            f"ComfyUI does not recognise the model in {files.path.name}. Choose another file."
        )
    register_rebuild(patcher)
    return patcher


def _left_out(names: list[str]) -> list[str]:
    if not names:
        return []
    return [f"{len(names)} tensors have no place in the model and were left out, as {names[0]}."]


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
