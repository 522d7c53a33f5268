"""A quantized diffusers pipeline, written with ``save_pretrained`` and loaded back bit by bit.

Every quantized module's file is one of this pack's (``storage.stored_layer``): plain tensors of
codes and scales with a marker a layer, under names that diffusers takes for no model.
"""

from __future__ import annotations

import importlib
import json
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..carriers.torchao_tensors import to_torchao
from ..errors import ArgumentError, StorageError, require_path
from ..storage import (
    PREFIX,
    StoredLayer,
    TensorFiles,
    find_layers,
    marker_name,
    marker_tensor,
)
from .source import find_file

_INDEX = "model_index.json"
_LIBRARIES = ("diffusers", "transformers")


def save_pipeline(pipe: Any, folder: str | Path, **options: Any) -> None:
    """``pipe.save_pretrained(folder, **options)`` of a pipeline with quantized modules.

    ``load_pipeline`` reads it. What is loaded through a hook must be on a device, so offloading is
    to be disabled before, as diffusers asks for any pipeline.
    """
    if not hasattr(pipe, "components") or not hasattr(pipe, "save_pretrained"):
        raise ArgumentError(f"pipe is {pipe!r:.60}. Give a pipeline of diffusers.")
    with ExitStack() as writing:
        for module in pipe.components.values():
            if isinstance(module, nn.Module) and _is_quantized(module):
                writing.enter_context(_as_stored(module))
        pipe.save_pretrained(str(folder), **options)


def load_pipeline(pipeline_class: Any, folder: str | Path, **options: Any) -> Any:
    """The pipeline that ``save_pipeline`` wrote; ``options`` are ``from_pretrained``'s.

    pipeline_class: of diffusers, such as FluxPipeline or DiffusionPipeline. StorageError for a file
    that does not hold.
    """
    require_path("folder", folder)
    folder = Path(folder)
    try:
        index = json.loads((folder / _INDEX).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise StorageError(
            f"{folder} holds no readable {_INDEX}. Name a saved pipeline."
        ) from error
    modules = {
        name: load_module(getattr(importlib.import_module(entry[0]), entry[1]), folder / name)
        for name, entry in index.items()
        if isinstance(entry, list) and entry[0] in _LIBRARIES and _is_ours(folder / name)
    }
    return pipeline_class.from_pretrained(str(folder), **{**modules, **options})


def load_module(cls: Any, folder: str | Path) -> nn.Module:
    """The quantized module of class ``cls`` (of diffusers or transformers) in ``folder``."""
    module = _from_config(cls, folder).requires_grad_(False).eval()
    with TensorFiles(find_file(Path(folder))) as files:
        prefix, layers = find_layers(files)
        taken = {spec.name for layer in layers.values() for spec in layer.specs.values()}
        taken |= {marker_name(name) for name in layers}
        plain = [n for n in files.specs if n.removeprefix(prefix) not in taken]
        state = {name.removeprefix(prefix): files.read(name) for name in plain}
        missing, unexpected = module.load_state_dict(state, strict=False, assign=True)
        missing = set(missing) - {f"{name}.weight" for name in layers}
        missing -= _tied(module)
        if missing or unexpected:
            wrong = sorted(missing) or sorted(unexpected)
            raise StorageError(
                f"{files.path} and {cls.__name__} disagree on {len(wrong)} tensors, such as "
                f"{wrong[0]}. Save the pipeline again."
            )
        dtype = _common_dtype(state.values())
        for name, layer in layers.items():
            weight = to_torchao(layer.read(files, prefix, dtype))
            module.get_submodule(name).weight = nn.Parameter(weight, requires_grad=False)
    if hasattr(module, "tie_weights"):
        module.tie_weights()
    return module


def _from_config(cls: Any, folder: str | Path) -> nn.Module:
    if hasattr(cls, "load_config"):
        return cls.from_config(cls.load_config(str(folder)))
    return cls(cls.config_class.from_pretrained(str(folder)))


def _is_quantized(module: nn.Module) -> bool:
    return any(hasattr(p, "quantized_weight") for p in module.parameters())


def _is_ours(folder: Path) -> bool:
    if not any(folder.glob("*.safetensors*")):
        return False
    with TensorFiles(find_file(folder)) as files:
        return any(name.startswith(PREFIX) for name in files.specs)


def _tied(module: nn.Module) -> set[str]:
    """What ``tie_weights`` gives the module, so that no file holds it."""
    tied = getattr(module, "_tied_weights_keys", None) or ()
    return set(tied)


def _common_dtype(tensors: Any) -> torch.dtype:
    counts: Counter[torch.dtype] = Counter()
    for tensor in tensors:
        if tensor.is_floating_point() and tensor.dtype.itemsize > 1:
            counts[tensor.dtype] += tensor.numel()
    return counts.most_common(1)[0][0] if counts else torch.float32


@contextmanager
def _as_stored(module: nn.Module) -> Iterator[None]:
    """While it lasts, ``module.state_dict()`` is what a file of this pack holds."""

    def store(_, state: dict[str, Any], prefix: str, metadata: Any) -> None:
        tensors = {name: state.pop(name) for name in list(state)}
        for name, tensor in tensors.items():
            if not hasattr(tensor, "quantized_weight"):
                state[PREFIX + name] = tensor
                continue
            weight = tensor.quantized_weight()
            layer = StoredLayer(name.removesuffix(".weight"), weight.format, weight.shape)
            parts = layer.tensors(weight) | {
                marker_name(layer.name): marker_tensor(layer.to_dict())
            }
            state.update({PREFIX + part: t.contiguous() for part, t in parts.items()})

    handle = module.register_state_dict_post_hook(store)
    try:
        yield
    finally:
        handle.remove()
