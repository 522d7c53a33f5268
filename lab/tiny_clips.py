"""Text encoders of ComfyUI's own classes, small enough for a test: seeded weights, bf16 files."""

from __future__ import annotations

import copy
import math
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import torch
from safetensors.torch import save_file

from .comfyui import import_comfyui
from .nodes.clip_sizes import MODEL_OPTIONS, T5_OF_24_LAYERS

if TYPE_CHECKING:
    from comfy.sd import CLIP

CLIP_L, T5XXL = "tiny_clip_l.safetensors", "tiny_t5xxl.safetensors"
DEEP_T5XXL = "tiny_t5xxl_24_layers.safetensors"
T5_BASE = "t5_base.safetensors"
LORA_LAYER = "t5xxl.transformer.encoder.block.0.layer.0.SelfAttention.v"

_CLASSES = {
    "clip_l": ("comfy.sd1_clip", "SDClipModel"),
    "clip_g": ("comfy.sdxl_clip", "SDXLClipG"),
    "t5xxl": ("comfy.text_encoders.sd3_clip", "T5XXLModel"),
    "llama": ("comfy.text_encoders.hunyuan_video", "LLAMAModel"),
    "qwen3_4b": ("comfy.text_encoders.z_image", "Qwen3_4BModel"),
    "t5base": ("comfy.text_encoders.sa_t5", "T5BaseModel"),
}


def dual_clip_files(folder: str | Path, deep: bool = False) -> tuple[Path, Path]:
    """Write a tiny CLIP-L and a tiny T5-XXL; ``lab.nodes.clip.load_dual_clip`` reads them. deep:
    the T5 of ``deep_t5_file``."""
    clip_l, t5xxl = Path(folder) / CLIP_L, Path(folder) / T5XXL
    clip_l.parent.mkdir(parents=True, exist_ok=True)
    save_file(weights("clip_l"), clip_l)
    if deep:
        return clip_l, deep_t5_file(folder)
    save_file(weights("t5xxl"), t5xxl)
    return clip_l, t5xxl


def deep_t5_file(folder: str | Path) -> Path:
    """Write a T5-XXL of 24 layers, which ComfyUI's loaders read quantized too."""
    path = Path(folder) / DEEP_T5XXL
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(deep_weights("t5xxl"), path)
    return path


def t5_lora(rank: int = 4) -> dict[str, torch.Tensor]:
    """A LoRA file's content, for LORA_LAYER of the tiny T5-XXL."""
    generator = torch.Generator().manual_seed(1)
    name, width = f"text_encoders.{LORA_LAYER}", MODEL_OPTIONS["t5xxl_model_config"]["d_model"]
    return {
        f"{name}.lora_up.weight": torch.randn(width, rank, generator=generator) * 0.1,
        f"{name}.lora_down.weight": torch.randn(rank, width, generator=generator) * 0.1,
    }


def encode(clip: CLIP, text: str = "a red fox in the snow") -> tuple[torch.Tensor, ...]:
    """(conditioning [1, tokens, width], pooled output [1, width] or None)."""
    return clip.encode_from_tokens(clip.tokenize(text), return_pooled=True)


def t5_base_file(folder: str | Path) -> Path:
    """Write a T5 base at its real size, 110 million parameters, 219 MB: CLIPLoader reads it."""
    path = Path(folder) / T5_BASE
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(weights("t5base"), path)
    return path


def quadruple_clip() -> CLIP:
    """A HiDream CLIP: CLIP-L, CLIP-G, T5-XXL and Llama."""
    hidream = import_module("comfy.text_encoders.hidream")
    dtypes = {"dtype_t5": torch.bfloat16, "dtype_llama": torch.bfloat16}
    return _clip(
        hidream.hidream_clip(**dtypes),
        hidream.HiDreamTokenizer,
        {"t5xxl_model_config": T5_OF_24_LAYERS},
        ("clip_l", "clip_g", "t5xxl", "llama"),
    )


def qwen_clip() -> CLIP:
    """A Z-Image CLIP: Qwen3."""
    z_image = import_module("comfy.text_encoders.z_image")
    te = z_image.te(dtype_llama=torch.bfloat16)
    return _clip(te, z_image.ZImageTokenizer, {}, ("qwen3_4b",))


def _clip(model: type, tokenizer: type, changes: dict, encoders: tuple[str, ...]) -> CLIP:
    """What ComfyUI's loader ends in; the loader itself tells encoders apart by their real sizes."""
    from comfy.sd import CLIP

    target = SimpleNamespace(params={}, clip=model, tokenizer=tokenizer)
    options = _options() | changes
    state = [weights(name, options) for name in encoders]
    return CLIP(target, state_dict=state, model_options=options)


def weights(name: str, options: dict | None = None, seed: int = 0) -> dict[str, torch.Tensor]:
    """The state dict of one encoder's transformer, bf16."""
    import_comfyui()
    module, cls = _CLASSES[name]
    options = _options() if options is None else options
    if name == "qwen3_4b":
        options = {**options, "model_name": name}
    encoder = getattr(import_module(module), cls)(
        device="meta", dtype=torch.bfloat16, model_options=copy.deepcopy(options)
    )
    generator = torch.Generator().manual_seed(seed)
    return {
        key: fill(key, weight.shape, generator).bfloat16()
        for key, weight in encoder.transformer.state_dict().items()
    }


def deep_weights(name: str) -> dict[str, torch.Tensor]:
    """As ``weights``; a T5-XXL has 24 layers."""
    return weights(name, _options() | {"t5xxl_model_config": T5_OF_24_LAYERS})


def _options() -> dict:
    sizes = copy.deepcopy(MODEL_OPTIONS)
    return {**sizes, "clip_l_model_config": sizes.pop("model_config"), "vocab_size": 128256}


def fill(key: str, shape: torch.Size, generator: torch.Generator) -> torch.Tensor:
    """Weights that keep a signal at its size. Biases are not zero: a dropped one must show."""
    noise = torch.randn(shape, generator=generator)
    if "embed" in key or "shared" in key:
        return noise
    if len(shape) > 1:
        # T5 does not divide q k by the root of its head size: its query weights do.
        heads = 1 / math.sqrt(32) if key.endswith("SelfAttention.q.weight") else 1
        return noise * heads / math.sqrt(shape[1])
    return noise * 0.02 if key.endswith("bias") else 1 + noise * 0.02
