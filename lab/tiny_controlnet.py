"""A tiny ControlNet of ComfyUI's own class, for the tiny Flux; seeded weights, made in memory."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file

from .tiny_models import FLUX, fill


def tiny_controlnet(hidden: int = 256, strength: float = 1.0, seed: int = 2):
    """A ControlNet with its hint, as Apply ControlNet leaves it; XLabs' kind, which takes pixels.

    ``hidden`` is that of the Flux it steers.
    """
    import comfy.ops
    from comfy.controlnet import ControlNet
    from comfy.ldm.flux.controlnet import ControlNetFlux

    model = ControlNetFlux(
        image_model="flux",
        in_channels=FLUX.latent[0],
        out_channels=FLUX.latent[0],
        patch_size=2,
        vec_in_dim=FLUX.pooled_width,
        context_in_dim=FLUX.context_width,
        hidden_size=hidden,
        mlp_ratio=4.0,
        num_heads=hidden // 128,
        depth=1,
        depth_single_blocks=0,
        axes_dim=[16, 56, 56],
        theta=10000,
        qkv_bias=True,
        guidance_embed=True,
        txt_ids_dims=[],
        dtype=torch.float32,
        device="cpu",
        operations=comfy.ops.manual_cast,
    )
    generator = torch.Generator().manual_seed(seed)
    model.load_state_dict(
        {name: fill(name, w.shape, generator) for name, w in model.state_dict().items()}
    )
    pixels = [8 * side for side in FLUX.latent[1:]]
    hint = torch.rand(1, 3, *pixels, generator=generator)
    cpu = torch.device("cpu")
    control = ControlNet(model.eval(), load_device=cpu, extra_conds=["y", "guidance"])
    return control.copy().set_cond_hint(hint, strength)


def tiny_controlnet_file(path: str | Path) -> Path:
    """Write its weights in bf16, as a file that ComfyUI's loader recognises."""
    state = tiny_controlnet().control_model.state_dict()
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    # XLabs call the weights of a norm its scale, by which ComfyUI knows them.
    names = {n: n.replace("_norm.weight", "_norm.scale") for n in state}
    save_file({names[name]: weight.bfloat16() for name, weight in state.items()}, path)
    return Path(path)
