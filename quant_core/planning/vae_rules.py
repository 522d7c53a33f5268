"""What is particular about a VAE: its two halves, the methods it cannot have, what INT8 saves.

A VAE is mostly convolutions: few weights, each used at thousands of places, so that activations and
not weights fill the memory.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..errors import UnsupportedMethodError
from ..presets import Preset, generic_preset

SCOPES = ("decoder", "encoder", "both")
ROTATED = "int8-convrot"
METHODS = ("none", "int8", ROTATED)

# Names that ComfyUI and diffusers give the halves: the first one on a layer's path decides.
_HALVES = {
    "encoder": "encoder",
    "taesd_encoder": "encoder",
    "dconv_encoder": "encoder",
    "decoder": "decoder",
    "taesd_decoder": "decoder",
    "decoder_model": "decoder",
}
# On a path without one of those: the top modules that lead to the latent (by file: KL and video
# VAEs, Wan, Stage A, MiniMax audio). All others (post_quant_conv, conv2, vocoder) lead from it.
_TO_LATENT = frozenset(
    ("quant_conv", "conv1", "in_block", "down_blocks", "pre_block", "mean_proj", "logs_proj")
)

_REASONS = {
    "fp8-dynamic": "PyTorch has no FP8 convolution",
    "fp8-weight-only": "FP8 takes the bytes of INT8 and decodes 3 to 10 dB worse",
    "int4": "INT4 groups run along the inputs of a Linear, and a VAE is convolutions",
    "int8-dynamic": "PyTorch has no INT8 convolution",
}

_MEMORY_NOTE = (
    "INT8 makes the VAE's weights smaller, not its activations, which are what a large encode or "
    "decode peaks at and what decides its time. When one runs out of memory, work in tiles."
)


def half_of(name: str) -> str:
    """Which half of a VAE the layer called ``name`` belongs to: "encoder" or "decoder"."""
    parts = name.split(".")
    for part in parts:
        if part in _HALVES:
            return _HALVES[part]
    return "encoder" if parts[0] in _TO_LATENT else "decoder"


def require_vae_method(method: str) -> None:
    """Raises UnsupportedMethodError where a VAE cannot have ``method`` (a resolved name)."""
    if method not in METHODS:
        reason = _REASONS.get(method, "it is for Linear layers, and a VAE is convolutions")
        raise UnsupportedMethodError(
            f"A VAE cannot be quantized to {method}, because {reason}. Choose int8 or none."
        )


def vae_preset(method: str, layers: Iterable[tuple[str, str]]) -> Preset | None:
    """What stays of a VAE by a resolved ``method``; layers: (name, kind) of each.

    The rotated method is for transformer decoders, as ComfyUI reads it: the Linears of repeated
    blocks. None where everything in the scope is quantized.
    """
    if method != ROTATED:
        return None
    return generic_preset(name for name, kind in layers if kind == "Linear")


def vae_notes(method: str) -> tuple[str, ...]:
    """What to know of a VAE that is quantized by a resolved ``method``."""
    return () if method == ROTATED else (_MEMORY_NOTE,)
