"""What is in a model file: its architecture, its layers' formats, and who reads it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ..patterns import first_match
from ..presets import TABLES, Recognised, recognise
from ..storage import LAYERS, PREFIX, TensorFiles
from ..storage.foreign import ForeignFile, find_foreign
from ..storage.stock import is_marked
from .readers import readers_of
from .source import find_file, is_linear
from .stored import StoredLayers, stored_layers

_MODEL_KEYS = ("method", "preset", "granularity", "source", "source_sha256", "version")


@dataclass(frozen=True)
class InspectedLayer:
    """One layer: its format in words, the shape of its weight, and its bytes with scales."""

    name: str
    format: str
    shape: tuple[int, ...]
    nbytes: int


@dataclass(frozen=True)
class Inspection:
    """layers: each Linear or quantized layer. other_bytes: all other tensors'. readers: who reads
    the file, in sentences. notes: what its metadata say of how it was made."""

    path: Path
    model: Recognised
    tensors: int
    nbytes: int
    layers: tuple[InspectedLayer, ...]
    other_bytes: int
    readers: tuple[str, ...]
    notes: dict[str, str]

    def by_format(self) -> dict[str, tuple[int, int]]:
        """Layers and bytes of each format, the largest first."""
        counts: Counter[str] = Counter()
        sizes: Counter[str] = Counter()
        for layer in self.layers:
            counts[layer.format] += 1
            sizes[layer.format] += layer.nbytes
        return {name: (counts[name], size) for name, size in sizes.most_common()}

    def to_dict(self) -> dict:
        """Plain values only."""
        return {
            "path": str(self.path),
            "architecture": self.model.architecture,
            "component": self.model.component,
            "preset": self.model.preset or "generic",
            "prefix": self.model.prefix,
            "tensors": self.tensors,
            "bytes": self.nbytes,
            "other_bytes": self.other_bytes,
            "readers": list(self.readers),
            "notes": self.notes,
            "layers": [{**vars(layer), "shape": list(layer.shape)} for layer in self.layers],
        }


def inspect_file(path: str | Path) -> Inspection:
    """What is in ``path``, a safetensors file, index or folder; errors as ``open_model``."""
    path = find_file(Path(path))
    with TensorFiles(path) as files:
        foreign = None if _is_marked(files) else find_foreign(files, True)
        stored = stored_layers(files) if foreign is None else None
        model = recognise(_shapes(files, stored))
        layers = _layers(files, stored, foreign)
        return Inspection(
            path=path,
            model=model,
            tensors=len(files.specs),
            nbytes=files.nbytes,
            layers=layers,
            other_bytes=files.nbytes - sum(layer.nbytes for layer in layers),
            readers=readers_of(files, stored, model, foreign is not None),
            notes={k: v for k in _MODEL_KEYS if (v := files.metadata.get(PREFIX + k))},
        )


def _is_marked(files: TensorFiles) -> bool:
    """Whether a marker says that a layer is ours or ComfyUI's."""
    private = any(name.startswith(PREFIX) for name in files.specs)
    return private or LAYERS in files.metadata or is_marked(files)


def _shapes(files: TensorFiles, stored: StoredLayers | None) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor, by its name without the prefix of this pack's files."""
    prefix = stored.prefix if stored else ""
    return {name.removeprefix(prefix): spec.shape for name, spec in files.specs.items()}


def _layers(
    files: TensorFiles, stored: StoredLayers | None, foreign: ForeignFile | None
) -> tuple[InspectedLayer, ...]:
    if foreign is not None:
        quantized = [
            InspectedLayer(
                layer.name,
                f"{layer.origin}, as {layer.format}",
                layer.shape,
                sum(files.specs[name].nbytes for name in layer.tensors),
            )
            for layer in foreign.layers.values()
        ]
        return (*quantized, *_plain_layers(files, foreign.plain, ""))
    prefix = stored.prefix
    quantized = [
        InspectedLayer(name, str(layer.format), layer.shape, layer.format.nbytes(layer.shape))
        for name, layer in stored.layers.items()
    ]
    for name, told in stored.unknown.items():
        size = sum(files.specs[n].nbytes for n in stored.claimed if n.startswith(f"{name}."))
        shape = files.specs[f"{name}.weight"].shape
        quantized.append(InspectedLayer(name.removeprefix(prefix), told, shape, size))
    rest = [name for name in files.specs if name not in stored.claimed]
    return (*quantized, *_plain_layers(files, rest, prefix))


def _plain_layers(
    files: TensorFiles, names: Iterable[str], prefix: str
) -> Iterator[InspectedLayer]:
    for name in names:
        spec = files.specs[name]
        layer = name.removeprefix(prefix).removesuffix(".weight")
        if is_linear(name, spec) and not first_match(TABLES, layer):
            kind = str(spec.dtype).removeprefix("torch.")
            yield InspectedLayer(layer, kind, spec.shape, spec.nbytes)
