"""Quantized weights kept on disk, so that the next start of ComfyUI need not quantize again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import comfy.model_management
import comfy.utils
import folder_paths
import torch
from comfy.model_patcher import ModelPatcher

from ....quant_core.errors import StorageError
from ....quant_core.formats import QuantizedWeight
from ....quant_core.planning.decisions import LayerPlan, Plan
from ....quant_core.report import MIB
from ....quant_core.storage import PREFIX, StoredLayer, TensorFiles, write_file
from .cache_key import SourceHashes, UncacheableError, cache_key

FOLDER = "graphquant_cache"
_KEY, _HASHES = f"{PREFIX}cache_key", f"{PREFIX}cache_sha256"

Weights = dict[str, QuantizedWeight]


def cache_folder() -> Path:
    """The cache's folder, beside ComfyUI's models because its files are as large. No loader lists
    it."""
    return Path(folder_paths.models_dir) / FOLDER


class WeightCache:
    """A folder with one file for each quantization, named by its key. notes, warnings: sentences
    for the report."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.notes: list[str] = []
        self.warnings: list[str] = []

    def weights(
        self,
        patcher: ModelPatcher,
        prefix: str,
        plan: Plan,
        device: torch.device | None,
        quantize: Callable[[], Weights],
    ) -> Weights:
        """The weights that ``quantize`` makes of the unloaded ``patcher`` by ``plan``, read from
        the file where there is one, every byte of it verified; made and written where there is
        none. A damaged file or a full disk is not an error."""
        try:
            hashes = SourceHashes(self.folder / "source_hashes.json", _on_bytes)
            key = cache_key(patcher, prefix, plan, device, hashes)
        except UncacheableError as error:
            self.warnings.append(f"cache: not used, because {error}.")
            return quantize()
        except OSError as error:
            reason = f"{self.folder} can't be written: {error}"
            self.warnings.append(f"cache: not used, because {reason}.")
            return quantize()
        file = self.folder / f"{plan.runs_as}-{key[:16]}.safetensors"
        found = self._read(file, key, patcher, prefix, plan)
        if found is None:
            found = quantize()
            self._write(file, key, plan, found)
        return found

    def _read(
        self, file: Path, key: str, patcher: ModelPatcher, prefix: str, plan: Plan
    ) -> Weights | None:
        if not file.is_file():
            return None
        try:
            with TensorFiles(file) as files:
                found = _read_layers(files, key, patcher, prefix, plan)
        except (StorageError, OSError) as error:
            self.warnings.append(f"cache: {file.name} is damaged and was made anew: {error}")
            return None
        self.notes.append(f"cache: read from {file.name}, every byte verified.")
        return found

    def _write(self, file: Path, key: str, plan: Plan, weights: Weights) -> None:
        layers = {name: stored_layer(la) for name, la in _own_layers(plan).items()}
        specs = [spec for layer in layers.values() for spec in layer.specs.values()]
        hashes = {name: _sha256(weights[name]) for name in layers}
        tensors = (
            item for name, layer in layers.items() for item in layer.tensors(weights[name]).items()
        )
        metadata = {_KEY: key, _HASHES: json.dumps(hashes)}
        try:
            size = write_file(file, specs, tensors, metadata, overwrite=True, on_bytes=_on_bytes)
        except (StorageError, OSError) as error:
            self.warnings.append(f"cache: not written. {error}")
            return
        files = [each.stat().st_size for each in self.folder.glob("*.safetensors")]
        self.notes.append(
            f"cache: wrote {size / MIB:.1f} MiB, {file.name}. {len(files)} such files take "
            f"{sum(files) / MIB:.1f} MiB in {self.folder}; delete any of them at any time."
        )


def stored_layer(layer: LayerPlan) -> StoredLayer:
    """How a planned layer lies in a cache file."""
    return StoredLayer(layer.name, layer.format, tuple(layer.shape))


def _own_layers(plan: Plan) -> Mapping[str, LayerPlan]:
    """The layers with a weight of their own."""
    return {layer.name: layer for layer in plan.quantized if layer.tied_to is None}


def _read_layers(
    files: TensorFiles, key: str, patcher: ModelPatcher, prefix: str, plan: Plan
) -> Weights:
    hashes = _hashes(files, key)
    found: Weights = {}
    for layer in plan.quantized:
        comfy.model_management.throw_exception_if_processing_interrupted()
        if layer.tied_to is not None:
            found[layer.name] = found[layer.tied_to]
            continue
        stored = stored_layer(layer)
        if any(files.specs.get(spec.name) != spec for spec in stored.specs.values()):
            raise StorageError(f"{layer.name} is not as it was written.")
        weight_key = f"{prefix}{layer.name}.weight"
        source = comfy.utils.get_attr(patcher.model, weight_key)
        in_floats = layer.source is None and weight_key not in patcher.patches
        dtype = source.dtype if in_floats else torch.float32
        weight = stored.read(files, "", dtype)
        if _sha256(weight) != hashes.get(layer.name):
            raise StorageError(f"{layer.name} is not as it was written.")
        found[layer.name] = weight.map(lambda part, source=source: part.to(source.device))
    return found


def _hashes(files: TensorFiles, key: str) -> dict[str, str]:
    if files.metadata.get(_KEY) != key:
        raise StorageError("it belongs to another quantization.")
    try:
        hashes = json.loads(files.metadata[_HASHES])
    except (KeyError, ValueError) as error:
        raise StorageError("it has no hashes.") from error
    return hashes if isinstance(hashes, dict) else {}


def _sha256(weight: QuantizedWeight) -> str:
    digest = hashlib.sha256()
    for part in weight.tensors.values():
        digest.update(part.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _on_bytes(count: int) -> None:
    comfy.model_management.throw_exception_if_processing_interrupted()
