"""Text encoders as ComfyUI builds them for each family of models, at their real sizes."""

from __future__ import annotations

from importlib import import_module

import torch
from torch import nn

_LLAMA = {"dtype_llama": torch.bfloat16}
_T5 = {"dtype_t5": torch.bfloat16}

# For each: the module of ComfyUI, the class in it or the function that makes one, its arguments.
_ENCODERS: dict[str, tuple[str, str, dict | None]] = {
    "sd15": ("comfy.sd1_clip", "SD1ClipModel", None),
    "sdxl": ("comfy.sdxl_clip", "SDXLClipModel", None),
    "sd3": ("comfy.text_encoders.sd3_clip", "sd3_clip", _T5),
    "flux1": ("comfy.text_encoders.flux", "flux_clip", _T5),
    "flux2_dev": ("comfy.text_encoders.flux", "flux2_te", _LLAMA),
    "flux2_klein": ("comfy.text_encoders.flux", "klein_te", _LLAMA),
    "wan": ("comfy.text_encoders.wan", "te", _T5),
    "qwen_image": ("comfy.text_encoders.qwen_image", "te", _LLAMA),
    "z_image": ("comfy.text_encoders.z_image", "te", _LLAMA),
    "krea2": ("comfy.text_encoders.krea2", "te", _LLAMA),
    "hunyuan_video": ("comfy.text_encoders.hunyuan_video", "hunyuan_video_clip", _LLAMA),
    "hunyuan_image": ("comfy.text_encoders.hunyuan_image", "te", _LLAMA),
    "hidream": ("comfy.text_encoders.hidream", "hidream_clip", _T5 | _LLAMA),
    "lumina2": ("comfy.text_encoders.lumina2", "te", _LLAMA),
    "ltx2": ("comfy.text_encoders.lt", "ltxav_te", _LLAMA),
    "omnigen2": ("comfy.text_encoders.omnigen2", "te", _LLAMA),
    "ovis_image": ("comfy.text_encoders.ovis", "te", _LLAMA),
    "ernie_image": ("comfy.text_encoders.ernie", "te", _LLAMA),
    "stable_audio_3": ("comfy.text_encoders.sa3", "SAT5GemmaModel", None),
    "qwen35": ("comfy.text_encoders.qwen35", "te", _LLAMA),
    "hunyuan_dit": ("comfy.text_encoders.hydit", "HyditModel", None),
    "newbie": ("comfy.text_encoders.newbie", "te", _LLAMA),
}


TEXT_ENCODERS = (*_ENCODERS, "gemma4")


def text_encoder(name: str) -> nn.Module:
    """The ``cond_stage_model`` of a CLIP for ``name``'s models, in bf16 on the meta device."""
    if name == "gemma4":
        return _gemma4()
    module, maker, options = _ENCODERS[name]
    cls = getattr(import_module(module), maker)
    if options is not None:
        cls = cls(**options)
    return cls(device="meta", dtype=torch.bfloat16)


def _gemma4() -> nn.Module:
    gemma4 = import_module("comfy.text_encoders.gemma4")
    cls = gemma4.gemma4_te(**_LLAMA, model_class=gemma4.Gemma4_E4B)
    return cls(device="meta", dtype=torch.bfloat16)
