"""Tiny checkpoints with real architectures: ComfyUI's own classes, seeded weights, bf16 files."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file

from .comfyui import import_comfyui

GAIN = 0.9


@dataclass(frozen=True)
class TinyModel:
    """What a sampler must feed one of the tiny checkpoints.

    ``latent`` is (channels, height, width) of an image or (channels, frames, height, width) of a
    video, in latent units of 8 pixels (and, for frames, 4 after the first).
    """

    file: str
    latent: tuple[int, ...]
    context_width: int
    context_length: int = 32
    pooled_width: int = 64
    guidance: float = 3.5


FLUX = TinyModel("tiny_flux.safetensors", latent=(16, 16, 16), context_width=256)
WAN = TinyModel("tiny_wan.safetensors", latent=(16, 2, 8, 8), context_width=4096)
SD15 = TinyModel("tiny_sd15.safetensors", latent=(4, 8, 8), context_width=768)


def tiny_flux(
    path: str | Path, hidden: int = 512, depth: int = 2, singles: int = 4, seed: int = 0
) -> Path:
    """Write a FLUX.1-architecture checkpoint; ``hidden`` is a multiple of 128 (one head each)."""
    return _write(flux_module(FLUX, hidden, depth, singles, **_shapes_only()), path, seed)


def flux_module(
    tiny: TinyModel,
    hidden: int,
    depth: int,
    singles: int,
    guidance_embed: bool = True,
    **placement,
) -> torch.nn.Module:
    """ComfyUI's own FLUX.1 class; ``placement`` is its dtype, device and operations."""
    import_comfyui()
    from comfy.ldm.flux.model import Flux

    return Flux(
        image_model="flux",
        in_channels=tiny.latent[0],
        out_channels=tiny.latent[0],
        patch_size=2,
        vec_in_dim=tiny.pooled_width,
        context_in_dim=tiny.context_width,
        hidden_size=hidden,
        mlp_ratio=4.0,
        num_heads=hidden // 128,
        depth=depth,
        depth_single_blocks=singles,
        axes_dim=[16, 56, 56],
        theta=10000,
        qkv_bias=True,
        guidance_embed=guidance_embed,
        txt_ids_dims=[],
        **placement,
    )


def tiny_wan(path: str | Path, dim: int = 256, layers: int = 2, seed: int = 0) -> Path:
    """Write a Wan 2.1 text-to-video checkpoint; ``dim`` is a multiple of 128 (one head each)."""
    import_comfyui()
    from comfy.ldm.wan.model import WanModel

    model = WanModel(
        model_type="t2v",
        dim=dim,
        ffn_dim=4 * dim,
        num_heads=dim // 128,
        num_layers=layers,
        text_dim=WAN.context_width,
        **_shapes_only(),
    )
    return _write(model, path, seed)


def tiny_sd15(path: str | Path, seed: int = 0, widths: tuple[int, int] = (1, 1)) -> Path:
    """Write a UNet of Stable Diffusion 1.5's widths, by which ComfyUI knows it: two levels, of
    ``widths`` times 320 channels."""
    import_comfyui()
    import comfy.ops
    from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel

    model = UNetModel(
        image_size=32,
        in_channels=4,
        out_channels=4,
        model_channels=320,
        num_res_blocks=[1, 1],
        channel_mult=list(widths),
        transformer_depth=[1, 0],
        transformer_depth_middle=1,
        transformer_depth_output=[1, 1, 0, 0],
        num_heads=8,
        context_dim=SD15.context_width,
        use_spatial_transformer=True,
        legacy=False,
        **_shapes_only() | {"operations": comfy.ops.disable_weight_init},
    )
    return _write(model, path, seed)


def _shapes_only() -> dict:
    return {"dtype": torch.bfloat16, "device": "meta", "operations": torch.nn}


def _write(model: torch.nn.Module, path: str | Path, seed: int) -> Path:
    generator = torch.Generator().manual_seed(seed)
    weights = {
        name: fill(name, weight.shape, generator).bfloat16()
        for name, weight in model.state_dict().items()
    }
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    save_file(weights, path)
    return Path(path)


def fill(name: str, shape: torch.Size, generator: torch.Generator) -> torch.Tensor:
    """Weights that pass a signal on, so that an error in any layer shows in the sampled latent.

    GAIN just below 1 keeps the network from amplifying errors the way an untrained one does.
    Biases are not zero: a kernel that drops one must not go unseen.
    """
    noise = torch.randn(shape, generator=generator)
    if len(shape) > 1:
        return noise * GAIN / math.sqrt(math.prod(shape[1:]))
    return noise * 0.02 if name.endswith("bias") else 1 + noise * 0.02
