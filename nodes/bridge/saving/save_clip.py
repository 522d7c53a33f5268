"""A quantized CLIP to files that ComfyUI's own CLIP loaders read: one for each text encoder."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from comfy.model_patcher import ModelPatcher
from comfy.sd import CLIP, llama_detect, t5xxl_detect
from torch import nn

from ....quant_core.errors import StorageError
from ....quant_core.formats import QuantizedWeight
from ....quant_core.report import MIB
from ....quant_core.storage import (
    STOCK_MARKER,
    Part,
    StoredLayer,
    TensorSpec,
    holds_already,
    quantized_part,
    refuse_to_replace,
    write_file,
)
from ..architecture.detected import sub_encoders
from ..model.float_weight import patched_shape, patched_weight, unload
from ..model.stock_saving import is_read_by_stock, requantized
from ..tensor.layout import is_ours, weight_of
from .saved_tensors import narrowest

_INNER = ".transformer"


@dataclass(frozen=True)
class SavedClip:
    """The files of a CLIP. paths: by encoder. sizes: in bytes. layers: that are quantized. there:
    the encoders whose files were there already, byte by byte."""

    paths: dict[str, Path]
    sizes: dict[str, int]
    layers: int
    seconds: float
    there: frozenset[str] = frozenset()

    def to_markdown(self) -> str:
        """What was written, a line for each file."""
        lines = [f"Saved {self.layers} quantized layers, verified, in {self.seconds:.1f} s.", ""]
        lines += [
            f"- {name}: {path.name}, {self.sizes[name] / MIB:.1f} MiB"
            + (", there already, byte by byte: not written" if name in self.there else "")
            for name, path in self.paths.items()
        ]
        lines += ["", "Load CLIP, Dual and so on, reads them without this pack."]
        return "\n".join(lines)


def save_quantized_clip(clip: CLIP, target: Path, overwrite: bool = False) -> SavedClip:
    """Write each text encoder of ``clip``, as ComfyUI stores quantized ones, LoRAs rounded in.

    target: the file; of several encoders each has its name added, as in flux_t5xxl. The CLIP is
    unloaded first. StorageError, before anything is written: nothing is quantized, or a layer has a
    format that ComfyUI does not read.
    """
    started = time.perf_counter()
    encoders = sub_encoders(clip.patcher.model)
    paths = _paths(encoders, target)
    unload(clip.patcher)
    layers = _readable_layers(encoders)
    parts = {
        name: [*_parts(clip.patcher, name, encoder), *_tokenizer(clip)]
        for name, encoder in encoders.items()
    }
    there = {name for name in encoders if holds_already(paths[name], *_content(parts[name]))}
    for name in encoders.keys() - there:
        refuse_to_replace(paths[name], overwrite)
    sizes = {
        name: paths[name].stat().st_size
        if name in there
        else write_file(paths[name], *_content(parts[name]), overwrite=overwrite)
        for name in encoders
    }
    seconds = time.perf_counter() - started
    return SavedClip(paths, sizes, layers, seconds, frozenset(there))


def _content(
    parts: Sequence[Part],
) -> tuple[list[TensorSpec], Iterator[tuple[str, torch.Tensor]], dict[str, str]]:
    """What a file of these parts holds: its tensors announced, the tensors, and the metadata."""
    specs = [spec for part in parts for spec in part.specs]
    made = (pair for part in parts for pair in part.make().items())
    return specs, made, {"format": "pt"}


def _paths(encoders: dict[str, nn.Module], target: Path) -> dict[str, Path]:
    if len(encoders) == 1:
        return {name: target for name in encoders}
    short = {name: name.removesuffix(_INNER).replace(".", "_") for name in encoders}
    return {name: target.with_stem(f"{target.stem}_{short[name]}") for name in encoders}


def _readable_layers(encoders: dict[str, nn.Module]) -> int:
    weights = [
        (f"{name}.{layer}", module.weight)
        for name, encoder in encoders.items()
        for layer, module in encoder.named_modules()
        if is_ours(getattr(module, "weight", None))
    ]
    if not weights:
        raise StorageError(
            "No layer of this CLIP is quantized. Connect the output of Quantize Text Encoder."
        )
    for name, weight in weights:
        fmt = weight._params.format
        if not is_read_by_stock(fmt, weight.dim()):
            raise StorageError(
                f"ComfyUI reads no text encoder in {fmt}, as {name} is. Quantize it to int8, or "
                "fp8-weight-only with granularity per-tensor; or use ComfyUI's CLIPSave, which "
                "writes plain weights."
            )
    for name in {name for name, _ in weights}:
        path = next(path for path in encoders if name.startswith(f"{path}."))
        if not _is_loaded_quantized(encoders[path]):
            raise StorageError(
                f"ComfyUI's loaders read no quantized {path.removesuffix(_INNER)}. Exclude it in "
                f"Quantize Text Encoder ({path.removesuffix(_INNER)} in exclude), or use "
                "ComfyUI's CLIPSave, which writes plain weights."
            )
    return len(weights)


def _is_loaded_quantized(encoder: nn.Module) -> bool:
    """Whether ComfyUI looks for quantized layers in a file of ``encoder``: asked of ComfyUI."""
    names = [*encoder.state_dict(), f"any.{STOCK_MARKER}"]
    state = {name: torch.empty(0, device="meta") for name in names}
    found = (t5xxl_detect([state]), llama_detect([state]))
    return any(key.endswith("quantization_metadata") for each in found for key in each)


def _parts(patcher: ModelPatcher, prefix: str, encoder: nn.Module) -> Iterator[Part]:
    """The tensors of one encoder, by the names that its own file has."""
    ours = {
        f"{name}.weight": module.weight.data
        for name, module in encoder.named_modules(remove_duplicate=False)
        if is_ours(getattr(module, "weight", None))
    }
    for name, tensor in encoder.state_dict().items():
        key = f"{prefix}.{name}"
        if name in ours:
            weight = ours[name]
            shape = tuple(patched_shape(patcher, key, weight))
            layer = StoredLayer(name.removesuffix(".weight"), weight._params.format, shape)
            yield quantized_part(layer, partial(_stored, patcher, key, weight), private=False)
        else:
            dtype = narrowest(tensor)
            spec = TensorSpec(name, dtype, tuple(tensor.shape))
            yield Part((spec,), partial(_plain, patcher, key, name, tensor, dtype))


def _tokenizer(clip: CLIP) -> Iterator[Part]:
    """The vocabulary that some encoders have in their own file."""
    for name, tensor in clip.tokenizer.state_dict().items():
        spec = TensorSpec(name, tensor.dtype, tuple(tensor.shape))
        yield Part((spec,), partial(dict, {name: tensor}))


def _stored(patcher: ModelPatcher, key: str, weight: torch.Tensor) -> QuantizedWeight:
    stored = weight_of(weight._qdata, weight._params)
    if key not in patcher.patches:
        return stored
    dense = stored.dequantize(torch.float32)
    return requantized(key, stored.format, patched_weight(patcher, key, dense, patcher.load_device))


def _plain(
    patcher: ModelPatcher, key: str, name: str, tensor: torch.Tensor, dtype: torch.dtype
) -> dict[str, torch.Tensor]:
    if key in patcher.patches:
        tensor = patched_weight(patcher, key, tensor, patcher.load_device)
    return {name: tensor.to(dtype)}
