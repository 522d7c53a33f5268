"""What other libraries quantized, to a MODEL: a layer at a time, as it is in the file."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from comfy.model_patcher import ModelPatcher

from ....quant_core.errors import StorageError
from ....quant_core.storage import GGUFFile, GGUFTensor, TensorFiles
from ....quant_core.storage.foreign import ForeignFile
from ..files.provenance import Provenance, read_provenance
from .building import build_model, is_recognised, model_prefix
from .diffusers_names import by_comfyuis_names
from .layers_in_file import Contents, Layer

# Where ComfyUI-GGUF's converter notes a shape that it has changed to fit the blocks.
_SHAPE = "comfy.gguf.orig_shape."
_WEIGHT = ".weight"


@dataclass(frozen=True)
class Loaded:
    """A model from a file, and what there is to report. size: the file's tensors, bytes. layers:
    how many quantized ones this pack carries. facts: sentences about the file."""

    patcher: ModelPatcher
    provenance: Provenance
    size: int
    layers: int
    facts: tuple[str, ...]


def load_foreign(files: TensorFiles, foreign: ForeignFile) -> Loaded:
    """The model whose quantized layers ``foreign`` describes."""
    prefix = model_prefix(files.specs)
    layers = {
        name.removeprefix(prefix): layer
        for name, layer in foreign.layers.items()
        if name.startswith(prefix)
    }
    plain = [name for name in foreign.plain if name.startswith(prefix)]
    dtypes = Counter(layer.dtype for layer in layers.values() if layer.dtype is not None)
    patcher, joined = _build(
        files.path.name,
        Contents(
            {name.removeprefix(prefix): files.read(name) for name in plain},
            {n: Layer(la.shape, partial(la.read, files)) for n, la in layers.items()},
        ),
        read_provenance(files.metadata, None).metadata,
        dtypes.most_common(1)[0][0] if dtypes else None,
    )
    used = len(plain) + sum(len(layer.tensors) for layer in layers.values())
    kinds = Counter((layer.origin, str(layer.format)) for layer in layers.values())
    facts = (
        *(f"{n} layers of {origin}, kept as {fmt}." for (origin, fmt), n in kinds.items()),
        *joined,
        *_count_facts(used, len(files.specs), len(plain)),
    )
    provenance = read_provenance(files.metadata, str(files.path))
    return Loaded(patcher, provenance, files.nbytes, len(layers), facts)


def load_gguf(path: Path) -> Loaded:
    """The model in a GGUF file. Blocks stay as they are, except in tensors of no
    layer."""
    with GGUFFile(path) as file:
        prefix = model_prefix(file.tensors)
        mine = {n.removeprefix(prefix): t for n, t in file.tensors.items() if n.startswith(prefix)}
        shapes = {name: _original_shape(file, tensor) for name, tensor in mine.items()}
        layers = {
            name.removesuffix(_WEIGHT): shapes[name]
            for name, tensor in mine.items()
            if _is_layer(name, tensor, shapes[name])
        }
        plain = [name for name in mine if name.removesuffix(_WEIGHT) not in layers]
        patcher, joined = _build(
            path.name,
            Contents(
                {name: _dense(file, mine[name], shapes[name]) for name in plain},
                {
                    name: Layer(shape, partial(file.read_weight, mine[name + _WEIGHT].name, shape))
                    for name, shape in layers.items()
                },
            ),
            {},
            torch.bfloat16,
        )
        kinds = Counter(mine[name + _WEIGHT].type for name in layers)
        facts = (
            *(
                f"{n} layers of GGUF {kind}, block by block as in the file."
                for kind, n in kinds.items()
            ),
            *joined,
            *_count_facts(len(mine), len(file.tensors), len(plain)),
        )
        return Loaded(patcher, Provenance(str(path)), file.nbytes, len(layers), facts)


def _build(
    file: str, contents: Contents, metadata: Mapping[str, str], dtype: torch.dtype | None
) -> tuple[ModelPatcher, tuple[str, ...]]:
    """``build_model``, whoever named the layers; and what there is to say of that."""
    if not is_recognised(contents, metadata):
        contents = by_comfyuis_names(file, contents)
    patcher = build_model(file, contents, metadata, dtype)
    told = f"{contents.joined} layers made of the file's rows, as ComfyUI joins q, k and v."
    return patcher, (told,) if contents.joined else ()


def _is_layer(name: str, tensor: GGUFTensor, shape: tuple[int, ...]) -> bool:
    return tensor.type is not None and name.endswith(_WEIGHT) and len(shape) > 1


def _original_shape(file: GGUFFile, tensor: GGUFTensor) -> tuple[int, ...]:
    kept = file.metadata.get(_SHAPE + tensor.name)
    if kept is None:
        return tensor.shape
    if not isinstance(kept, list) or math.prod(kept) != math.prod(tensor.shape) or min(kept) < 1:
        raise StorageError(
            f"{file.path.name} has {tensor.name!r} as {list(tensor.shape)} and says that it was "
            f"{kept}. Download it again; nothing was loaded."
        )
    return tuple(kept)


def _dense(file: GGUFFile, tensor: GGUFTensor, shape: tuple[int, ...]) -> torch.Tensor:
    if tensor.type is None:
        return file.read(tensor.name).view(shape)
    return file.read_weight(tensor.name, shape, torch.float32).dequantize()


def _count_facts(used: int, total: int, plain: int) -> Iterator[str]:
    yield f"{used} of {total} tensors used; {plain} of them are not quantized."
    if used < total:
        yield f"{total - used} tensors belong to other models and were left out."
