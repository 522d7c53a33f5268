"""Tiny models that steer a diffusion model, of ComfyUI's own classes; seeded weights, in memory.

Each is a function without arguments and returns what ComfyUI's loader gives for such a file.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from .tiny_models import fill


def _filled(module: nn.Module, seed: int = 3) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    state = {name: fill(name, w.shape, generator) for name, w in module.state_dict().items()}
    module.load_state_dict(state)
    return module.eval()


def _placement() -> dict:
    import comfy.ops

    return {"dtype": torch.float32, "device": "cpu", "operations": comfy.ops.manual_cast}


def sd15_controlnet():
    """A ControlNet of Stable Diffusion 1.5's kind: mostly convolutions."""
    from comfy.cldm.cldm import ControlNet as Module
    from comfy.controlnet import ControlNet

    module = Module(
        image_size=32,
        in_channels=4,
        hint_channels=3,
        model_channels=64,
        num_res_blocks=[1, 1],
        channel_mult=[1, 2],
        transformer_depth=[1, 1],
        transformer_depth_middle=1,
        num_heads=4,
        context_dim=64,
        use_spatial_transformer=True,
        legacy=False,
        **_placement(),
    )
    return ControlNet(_filled(module), load_device=torch.device("cpu"))


def qwen_controlnet():
    """A ControlNet of Qwen-Image's kind (InstantX)."""
    from comfy.controlnet import ControlNet
    from comfy.ldm.qwen_image.controlnet import QwenImageControlNetModel

    module = QwenImageControlNetModel(
        in_channels=64,
        num_layers=2,
        attention_head_dim=128,
        num_attention_heads=2,
        joint_attention_dim=64,
        axes_dims_rope=(16, 56, 56),
        **_placement(),
    )
    return ControlNet(_filled(module), load_device=torch.device("cpu"), extra_conds=[])


def t2i_adapter():
    """A T2I-Adapter: convolutions alone."""
    from comfy.controlnet import T2IAdapter
    from comfy.t2i_adapter.adapter import Adapter

    module = Adapter(cin=192, channels=[64, 128, 128, 128], nums_rb=2, ksize=1, sk=True, xl=False)
    return T2IAdapter(_filled(module), module.input_channels, 8, "nearest-exact")


def control_lora():
    """A Control-LoRA for a UNet of model_channels 64: its own state dict, no module."""
    from comfy.controlnet import ControlLora

    generator = torch.Generator().manual_seed(4)
    shapes = {
        "lora_controlnet": (0,),
        "input_hint_block.0.weight": (16, 3, 3, 3),
        "input_hint_block.0.bias": (16,),
        "input_blocks.1.0.in_layers.2.up": (64, 16),
        "input_blocks.1.0.in_layers.2.down": (16, 64, 3, 3),
        "input_blocks.1.1.transformer_blocks.0.attn1.to_q.up": (64, 16),
        "input_blocks.1.1.transformer_blocks.0.attn1.to_q.down": (16, 64),
        "input_blocks.1.1.transformer_blocks.0.ff.net.2.weight": (64, 256),
        "zero_convs.0.0.weight": (64, 64, 1, 1),
        "zero_convs.0.0.bias": (64,),
    }
    return ControlLora({n: torch.randn(*s, generator=generator) for n, s in shapes.items()})


def _patcher(module: nn.Module):
    from comfy.model_patcher import CoreModelPatcher

    cpu = torch.device("cpu")
    return CoreModelPatcher(_filled(module), load_device=cpu, offload_device=cpu)


def diffsynth_patch():
    """A model patch of DiffSynth's kind, for Qwen-Image."""
    from comfy_extras.nodes_model_patch import QwenImageBlockWiseControlNet

    return _patcher(QwenImageBlockWiseControlNet(num_layers=2, dim=256, **_placement()))


def z_image_patch():
    """A model patch of Z-Image's control kind."""
    from comfy.ldm.lumina.controlnet import ZImage_Control

    module = ZImage_Control(dim=256, n_heads=2, n_kv_heads=2, n_control_layers=2, **_placement())
    return _patcher(module)


CONTROLNETS: tuple[Callable, ...] = (sd15_controlnet, qwen_controlnet, t2i_adapter, control_lora)
MODEL_PATCHES: tuple[Callable, ...] = (diffsynth_patch, z_image_patch)
