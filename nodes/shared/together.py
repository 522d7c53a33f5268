"""Whether the MODEL, the text encoders and the VAE of a workflow fit on the device together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path

import comfy.model_management
import folder_paths
import torch

from ...quant_core.conversion.sizes import Sizes, estimate
from ...quant_core.errors import QuantizationError
from ...quant_core.fit.fitting import gib

_ENCODER, _VAE = "encoder", "vae"
# A loader's input begins so: which folder the file is in, and the components that are read of it.
_LOADERS = {
    "clip_name": ("text_encoders", (_ENCODER,)),
    "vae_name": ("vae", (_VAE,)),
    "ckpt_name": ("checkpoints", (_ENCODER, _VAE)),
}
_QUANTIZE = {_ENCODER: "GQQuantizeTextEncoder", _VAE: "GQQuantizeVAE"}


def together_notes(
    prompt: Mapping | None, model_bytes: int, device: torch.device
) -> tuple[str, ...]:
    """A note where a model of ``model_bytes`` and what else the workflow ``prompt`` loads are more
    than ``device`` has. prompt: ComfyUI's, by node; None where it is not known."""
    sizes = dict.fromkeys(_QUANTIZE, 0)
    for component, size in _loaded(prompt or {}):
        sizes[component] += size
    total = comfy.model_management.get_total_memory(device)
    if not any(sizes.values()) or model_bytes + sum(sizes.values()) <= total:
        return ()
    classes = {node.get("class_type") for node in prompt.values()}
    remedy = ""
    if sizes[_ENCODER] and _QUANTIZE[_ENCODER] not in classes:
        remedy = " Quantize Text Encoder makes the encoders smaller."
    return (
        f"text encoders {gib(sizes[_ENCODER])}, this model {gib(model_bytes)} and VAE "
        f"{gib(sizes[_VAE])} do not fit together in the {gib(total)} of {device}: ComfyUI loads "
        f"them in turns.{remedy}",
    )


def _loaded(prompt: Mapping) -> Iterator[tuple[str, int]]:
    """(component, bytes) of every file that the workflow names, as its Quantize nodes leave it."""
    methods = {
        component: node["inputs"].get("method")
        for node in prompt.values()
        for component, kind in _QUANTIZE.items()
        if node.get("class_type") == kind
    }
    for node in prompt.values():
        for name, value in node.get("inputs", {}).items():
            for start, (folder, components) in _LOADERS.items():
                path = (
                    folder_paths.get_full_path(folder, value)
                    if name.startswith(start) and isinstance(value, str)
                    else None
                )
                for component in components if path else ():
                    yield component, _size(path, component, methods.get(component))


def _size(path: str, component: str, method: object) -> int:
    """Of a component of a file, quantized by ``method`` where a node does that; 0 where it is not
    known: a pickle, a damaged file."""
    stat = Path(path).stat()
    try:
        found = _estimate(path, component, method, stat.st_mtime_ns)
    except (QuantizationError, OSError):
        return 0
    estimated = found.methods[0]
    return found.nbytes if estimated.problem else estimated.nbytes


@lru_cache(maxsize=32)
def _estimate(path: str, component: str, method: object, version: int) -> Sizes:
    return estimate(path, [method if isinstance(method, str) else "none"], component)
