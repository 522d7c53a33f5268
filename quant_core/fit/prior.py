"""The assumption about a model's layers that is used until their sensitivity is measured."""

from __future__ import annotations

import math
from collections.abc import Iterable

from ..patterns import first_match
from ..planning.decisions import LayerPlan

# Layers that makers of quantized files keep wider than the rest, and where that was published.
WIDER: dict[str, tuple[str, ...]] = {
    # Black Forest Labs' fp8mixed file.
    "flux2": ("*_attn.qkv", "*_attn.proj"),
    # Lightricks' FP8 and NVFP4 files of LTX-2.3.
    "ltx2": tuple(f"transformer_blocks.{n}" for n in (0, 1, 46, 47)),
    # Modulation in INT4 costs 17 dB, in INT8 nothing that is seen.
    "qwen_image": ("img_mod", "txt_mod"),
    # NVIDIA ModelOpt's recipes.
    "wan": tuple(f"blocks.{n}" for n in (0, 1, 2, 37, 38, 39)),
}
_BITS_WIDER = 2


def assumed_per_error(layers: Iterable[LayerPlan], preset: str | None) -> dict[str, float]:
    """The assumed effect of each layer divided by the relative error of its weight: the same for
    every weight, except that layers known to be sensitive get two bits more."""
    layers = list(layers)
    total = sum(math.prod(layer.shape) for layer in layers) or 1
    patterns = WIDER.get(preset or "", ())
    return {
        layer.name: math.sqrt(math.prod(layer.shape) / total)
        * (2**_BITS_WIDER if first_match(patterns, layer.name) else 1)
        for layer in layers
    }
