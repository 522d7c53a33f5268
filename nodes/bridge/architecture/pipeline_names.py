"""Which architectures a text encoder or a VAE works for. Several can share one."""

from __future__ import annotations

import comfy.sd
import comfy.supported_models
from torch import nn

from .detected import config_architecture

# Modules of text encoders that are not called like their one architecture.
_ENCODERS = {
    "sd1_clip": ("sd15_sdxl",),
    "sd2_clip": ("sd15_sdxl",),
    "sdxl_clip": ("sd15_sdxl", "stable_cascade_b", "stable_cascade_c"),
    "sd3_clip": ("sd3",),
    "flux": ("flux1",),
    "longcat_image": ("flux1",),
    "genmo": ("mochi", "ltxv"),
    "lt": ("ltx2",),
    "pixart_t5": ("pixart", "chroma"),
    "aura_t5": ("auraflow",),
    "hydit": ("hydit", "hydit1"),
    "hunyuan_image": ("hunyuan_video",),
    "pixeldit": ("pid", "pixeldit_t2i"),
    "cogvideo": ("cogvideox",),
    "minimax": ("minimax_h3",),
    "minimax_music": ("minimax_music3",),
    "ernie": ("ernie_image",),
    "gpt_oss": ("lens",),
    "sa_t5": ("dit1_0",),
    "sa3": ("dit1_0",),
    "ace15": ("ace1_5",),
    "sam3_clip": ("sam3", "sam31"),
}

# Where a VAE's decoder is defined, and the latent formats (classes of comfy.latent_formats) it
# decodes; formats of other sizes than the VAE's are told apart by these.
_DECODERS = {
    "comfy.ldm.modules": ("SD15", "SDXL", "SD_X4", "SD3", "Flux", "Flux2", "HunyuanVideo"),
    "comfy.ldm.hunyuan_video": ("HunyuanVideo15", "HunyuanImage21"),
    "comfy.ldm.wan": ("Wan21", "Wan22"),
    "comfy.ldm.lightricks": ("LTXV", "LTXAV"),
    "comfy.ldm.genmo": ("Mochi",),
    "comfy.ldm.cogvideo": ("CogVideoX",),
    "comfy.ldm.cosmos": ("Cosmos1CV8x8x8",),
}


def architecture_names() -> tuple[str, ...]:
    """Every architecture that ComfyUI detects, each once."""
    return tuple(dict.fromkeys(map(config_architecture, comfy.supported_models.models)))


def encoder_architectures(cond_stage_model: nn.Module) -> tuple[str, ...]:
    """The architectures that a CLIP's ``cond_stage_model`` encodes for; empty when unknown."""
    cls = type(cond_stage_model)
    if any(base.__name__ == "Flux2TEModel" for base in cls.__mro__):
        return ("flux2",)  # beside FLUX.1's in one module
    module = cls.__module__.rpartition(".")[2]
    return _ENCODERS.get(module) or tuple({module} & set(architecture_names()))


def vae_architectures(vae: comfy.sd.VAE) -> tuple[str, ...]:
    """The architectures whose latents ``vae`` decodes; empty when unknown."""
    home = type(getattr(vae.first_stage_model, "decoder", None)).__module__
    formats = next((names for prefix, names in _DECODERS.items() if home.startswith(prefix)), ())
    size = (vae.latent_channels, vae.latent_dim)
    found = {
        config_architecture(config)
        for config in comfy.supported_models.models
        if type(config.latent_format()).__name__ in formats
        and (config.latent_format.latent_channels, config.latent_format.latent_dimensions) == size
    }
    return tuple(sorted(found))
