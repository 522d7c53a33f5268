"""A model file as something to plan on: its layers by name, shape and dtype, none of them read."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from ..errors import StorageError, require_path
from ..patterns import first_match
from ..presets import TABLES, Recognised, recognise
from ..storage import GGUF_SUFFIX, INDEX_SUFFIX, TensorFiles, TensorSpec

_SUFFIXES = (".safetensors", ".sft")
_SHARD = re.compile(r"(.+)-\d+-of-(\d+)\.safetensors")
_WEIGHT = ".weight"


@dataclass(frozen=True)
class ModelFile:
    """An open safetensors file, or the shards of one, and the model that is quantized in it."""

    files: TensorFiles
    model: Recognised

    @property
    def path(self) -> Path:
        """The file that is read."""
        return self.files.path

    def layers(self) -> nn.Module:
        """The model's Linear layers and tables of embeddings, as a tree of modules on the meta
        device, to plan on."""
        root = nn.Module()
        for name, spec in self.files.specs.items():
            if is_linear(name, spec) and name.startswith(self.model.prefix):
                layer = name.removeprefix(self.model.prefix).removesuffix(_WEIGHT)
                put_layer(root, layer, matrix_of_file(layer, spec))
        return root

    def layers_and_vectors(self) -> nn.Module:
        """As ``layers``, with all biases and normalizations, which are read: what tells one model
        from another, and which layers have a bias."""
        root = self.layers()
        for name, spec in self.files.specs.items():
            if len(spec.shape) == 1 and spec.dtype.is_floating_point and spec.dtype.itemsize > 1:
                *path, last = name.removeprefix(self.model.prefix).split(".")
                if name.startswith(self.model.prefix):
                    values = nn.Parameter(self.files.read(name), requires_grad=False)
                    _between(root, path).register_parameter(last, values)
        return root

    def weight_name(self, layer: str) -> str:
        """The tensor that holds the weight of a layer of ``layers``."""
        return f"{self.model.prefix}{layer}{_WEIGHT}"


class FileLayer(nn.Module):
    """Stands for a Linear layer of a file: shape and dtype of its weight."""

    def __init__(self, spec: TensorSpec):
        super().__init__()
        self.out_features, self.in_features = spec.shape
        weight = torch.empty(spec.shape, dtype=spec.dtype, device="meta")
        self.weight = nn.Parameter(weight, requires_grad=False)


class FileTable(nn.Module):
    """Stands for an embedding of a file, or for another matrix that no layer multiplies by."""

    def __init__(self, spec: TensorSpec):
        super().__init__()
        self.num_embeddings, self.embedding_dim = spec.shape
        weight = torch.empty(spec.shape, dtype=spec.dtype, device="meta")
        self.weight = nn.Parameter(weight, requires_grad=False)


def matrix_of_file(name: str, spec: TensorSpec) -> FileLayer | FileTable:
    """What stands for the matrix of a file that belongs to the layer called ``name``."""
    return FileTable(spec) if first_match(TABLES, name) else FileLayer(spec)


@contextmanager
def open_model(path: str | Path) -> Iterator[ModelFile]:
    """The model in ``path``: a safetensors file, the index of a sharded one, or their folder.

    StorageError: no such file, a pickle, a GGUF file, one of several shards, a header that does not
    hold, two models in one file.
    """
    require_path("source", path)
    path = find_file(Path(path))
    with TensorFiles(path) as files:
        shapes = {name: spec.shape for name, spec in files.specs.items()}
        try:
            model = recognise(shapes)
        except StorageError as error:
            raise StorageError(f"{path.name}: {error}") from None
        yield ModelFile(files, model)


def find_file(path: Path) -> Path:
    """The safetensors file or index at ``path``, a file or a folder. Errors as ``open_model``."""
    if path.is_dir():
        return _in_folder(path)
    if not path.is_file():
        raise StorageError(f"There is no file {path}. Check the path.")
    if path.name.endswith(INDEX_SUFFIX):
        return path
    _require_safetensors(path)
    shard = _SHARD.fullmatch(path.name)
    if shard and int(shard[2]) > 1:
        index = f"{shard[1]}{INDEX_SUFFIX}"
        raise StorageError(
            f"{path.name} is one of {int(shard[2])} shards. Name the index, {index}."
        )
    return path


def _in_folder(folder: Path) -> Path:
    found = sorted(folder.glob(f"*{INDEX_SUFFIX}"))
    found = found or sorted(p for suffix in _SUFFIXES for p in folder.glob(f"*{suffix}"))
    if len(found) != 1:
        names = f": {', '.join(p.name for p in found[:3])}" if found else ""
        raise StorageError(f"{folder} holds {len(found)} models{names}. Name the file itself.")
    return find_file(found[0])


def _require_safetensors(path: Path) -> None:
    with path.open("rb") as file:
        start = file.read(4)
    if start == b"GGUF" or path.suffix.lower() == GGUF_SUFFIX:
        raise StorageError(
            f"{path.name} is a GGUF file, which is quantized already. Start from the original."
        )
    if start[:2] in (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"):
        raise StorageError(
            f"{path.name} is a pickle, which can run code when it is read. Get the model as "
            "safetensors, or load it in ComfyUI and save it with Save Checkpoint."
        )


def is_linear(name: str, spec: TensorSpec) -> bool:
    """Whether a tensor may be the weight of a Linear layer: a matrix called weight."""
    return name.endswith(_WEIGHT) and len(spec.shape) == 2 and min(spec.shape) > 0


def put_layer(root: nn.Module, name: str, layer: nn.Module) -> None:
    """Make ``layer`` the submodule called ``name``, and what lies between."""
    *path, last = name.split(".")
    root = _between(root, path)
    if last in root._modules:
        for child, module in root._modules[last]._modules.items():
            layer.add_module(child, module)
    root.add_module(last, layer)


def _between(root: nn.Module, path: list[str]) -> nn.Module:
    """The module at ``path`` below ``root``, made with all on the way where it is not there."""
    for part in path:
        if part not in root._modules:
            root.add_module(part, nn.Module())
        root = root._modules[part]
    return root
