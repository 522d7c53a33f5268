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


def sd15_controls(patcher, rank: int = 4, seed: int = 3) -> dict[str, dict[str, torch.Tensor]]:
    """What the files of two ControlNets for the tiny SD 1.5 hold that read the model's own weights:
    a Control-LoRA, and one of differences. Seeded, and as large as to change the picture."""
    import comfy.ops
    from comfy.cldm.cldm import ControlNet

    config = dict(patcher.model.model_config.unet_config)
    config.pop("out_channels")
    options = {"operations": comfy.ops.manual_cast, "dtype": torch.float32, "device": "meta"}
    shapes = ControlNet(**config | options | {"hint_channels": 3}).state_dict()
    model = patcher.model.diffusion_model.state_dict()
    generator = torch.Generator().manual_seed(seed)
    own = {n: 0.3 * fill(n, w.shape, generator) for n, w in shapes.items() if n not in model}
    lora = {"lora_controlnet": torch.zeros(1), **own}
    difference = {f"control_model.{name}": weight for name, weight in own.items()}
    for name, weight in shapes.items():
        if name in model:
            n, k = len(weight), weight[0].numel()
            small = 0.01 * torch.randn(weight.shape, generator=generator)
            difference[f"control_model.{name}"] = small
            if weight.dim() == 2:
                layer = name.removesuffix(".weight")
                lora[f"{layer}.up"] = 0.05 * torch.randn(n, rank, generator=generator)
                lora[f"{layer}.down"] = 0.05 * torch.randn(rank, k, generator=generator)
    return {"Control-LoRA": lora, "difference": {"difference": torch.zeros(1), **difference}}


def sd15_control(patcher, kind: str, strength: float = 1.0):
    """That ControlNet of ``sd15_controls`` with its hint, as ComfyUI loads it for ``patcher``."""
    import comfy.controlnet

    data = {name: weight.clone() for name, weight in sd15_controls(patcher)[kind].items()}
    control = comfy.controlnet.load_controlnet_state_dict(data, model=patcher)
    hint = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(4))
    return control.copy().set_cond_hint(hint, strength)
