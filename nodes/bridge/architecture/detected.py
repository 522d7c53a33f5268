"""Which architecture a ComfyUI model or text encoder is, and the preset that goes with it."""

from __future__ import annotations

import re

from torch import nn

from ....quant_core.presets import PRESETS

# Class names of comfy.supported_models. A subclass goes with the nearest class named here.
_MODEL_CONFIGS = {
    "Flux": "flux1",
    "LongCatImage": "flux1",
    "Flux2": "flux2",
    "Chroma": "chroma",
    "QwenImage": "qwen_image",
    "ZImage": "z_image",
    "Lumina2": "lumina2",
    "SD15": "sd15_sdxl",
    "SD20": "sd15_sdxl",
    "SDXL": "sd15_sdxl",
    "SDXLRefiner": "sd15_sdxl",
    "SVD_img2vid": "sd15_sdxl",
    "Stable_Zero123": "sd15_sdxl",
    "SD3": "sd3",
    "AuraFlow": "auraflow",
    "PixArtAlpha": "pixart",
    "HiDream": "hidream",
    "HiDreamO1": "hidream_o1",
    "Krea2": "krea2",
    "Ideogram4": "ideogram4",
    "ErnieImage": "ernie_image",
    "Boogu": "boogu",
    "Lens": "lens",
    "WAN21_T2V": "wan",
    "LTXV": "ltxv",
    "LTXAV": "ltx2",
    "HunyuanVideo": "hunyuan_video",
    "CogVideoX_T2V": "cogvideox",
    "GenmoMochi": "mochi",
    "CosmosT2V": "cosmos",
    "CosmosT2IPredict2": "cosmos",
    "Anima": "anima",
    "MiniMaxH3": "minimax_h3",
    "SeedVR2": "seedvr2",
}

# Class names of comfy.clip_model and comfy.text_encoders, likewise. Mistral's small sibling is
# named because it derives from a Qwen3 class.
_ENCODERS = {
    "CLIPTextModel": "clip",
    "T5": "t5",
    "BaseQwen3": "qwen",
    "Qwen25_3B": "qwen",
    "Qwen25_7BVLI": "qwen",
    "Ovis25_2B": "qwen",
    "Qwen35": "qwen35",
    "Gemma2_2B": "gemma",
    "Gemma3_4B": "gemma",
    "Gemma3_4B_Vision": "gemma",
    "Gemma3_12B": "gemma",
    "Gemma4Base": "gemma",
    "T5GemmaModel": "gemma",
    "Llama2": "llama",
    "Mistral3Small24B": "llama",
    "Ministral3_3B": "llama",
}


def architecture_name(base_model: nn.Module) -> str:
    """The architecture of a ComfyUI BaseModel (``patcher.model``), in snake_case."""
    return config_architecture(type(base_model.model_config))


def config_architecture(config: type) -> str:
    """The architecture of a class of comfy.supported_models.

    A preset's name where there is one, else ComfyUI's own word for it: ``image_model`` or
    ``audio_model`` of the configuration, or the class's name.
    """
    known = _nearest_class(config, _MODEL_CONFIGS)
    if known:
        return known
    unet = config.unet_config
    name = unet.get("image_model") or unet.get("audio_model") or config.__name__
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


def preset_name(base_model: nn.Module) -> str | None:
    """The preset for a ComfyUI BaseModel, or None: then the generic rule applies."""
    name = architecture_name(base_model)
    return name if name in PRESETS else None


def sub_encoders(cond_stage_model: nn.Module) -> dict[str, nn.Module]:
    """The transformers in a CLIP's ``cond_stage_model``, by dotted path (``t5xxl.transformer``)."""
    return {
        path: module
        for path, module in cond_stage_model.named_modules()
        if path.rpartition(".")[2] == "transformer"
    }


def encoder_preset_name(transformer: nn.Module) -> str | None:
    """The preset for one of ``sub_encoders``' modules, or None: then the generic rule applies."""
    return _nearest_class(type(transformer), _ENCODERS)


def _nearest_class(derived: type, names: dict[str, str]) -> str | None:
    for cls in derived.__mro__:
        if cls.__module__.startswith("comfy.") and cls.__name__ in names:
            return names[cls.__name__]
    return None
