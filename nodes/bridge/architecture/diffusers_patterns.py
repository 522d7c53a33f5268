"""Translates patterns of diffusers' layer names into the names of ComfyUI's model.

Tested by tests/nodes/test_quantization_config.py.
"""

from __future__ import annotations

from collections.abc import Sequence

import comfy.lora
from comfy.model_base import BaseModel

from ....quant_core.layers import supported_layers
from ....quant_core.patterns import matches
from ....quant_core.planning.filters import unmatched

_DIFFUSERS, _COMFYUI = "transformer.", "diffusion_model."
# vLLM-Omni joins what diffusers has apart, and names it in a configuration.
_JOINED = {
    "to_qkv": ("to_q", "to_k", "to_v"),
    "add_kv_proj": ("add_q_proj", "add_k_proj", "add_v_proj"),
}


def in_comfyuis_names(
    patterns: Sequence[str], model: BaseModel
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """``patterns``, and a note for each that was replaced: a pattern that matches none of ComfyUI's
    layers becomes the layers whose diffusers names it matches, if any. A layer that diffusers has
    as three (q, k, v) is kept as soon as the pattern matches one of the three."""
    layers = [name for name, _, _ in supported_layers(model.diffusion_model, "transformer")]
    foreign = unmatched(patterns, layers)
    names = _diffusers_names(model, layers) if foreign else {}
    replaced, notes = [], []
    for pattern in patterns:
        meant = _apart(pattern) if pattern in foreign else ()
        found = dict.fromkeys(names[n] for n in names if any(matches(each, n) for each in meant))
        replaced += found or [pattern]
        if found:
            told = next(iter(found)) + (f" and {len(found) - 1} more" if len(found) > 1 else "")
            notes.append(f"config: {pattern!r} is diffusers' name of {told}.")
    return tuple(replaced), tuple(notes)


def _apart(pattern: str) -> tuple[str, ...]:
    """``pattern``, or one for each layer of diffusers' that vLLM-Omni joins under its last part."""
    rest, dot, last = pattern.rpartition(".")
    return tuple(f"{rest}{dot}{each}" for each in _JOINED.get(last, (last,)))


def _diffusers_names(model: BaseModel, layers: Sequence[str]) -> dict[str, str]:
    """Diffusers' names of ``layers`` -> ComfyUI's, from the table by which it reads LoRAs."""
    known, names = frozenset(layers), {}
    for name, to in comfy.lora.model_lora_keys_unet(model, {}).items():
        target = to if isinstance(to, str) else to[0]
        layer = target.removeprefix(_COMFYUI).removesuffix(".weight")
        if name.startswith(_DIFFUSERS) and layer in known:
            names[name.removeprefix(_DIFFUSERS)] = layer
    return names
