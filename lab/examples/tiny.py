"""The examples on tiny models, as tests and pictures run them."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file

from ..tiny_clips import CLIP_L, T5XXL, dual_clip_files
from ..tiny_controlnet import tiny_controlnet_file
from ..tiny_models import WAN, TinyModel, tiny_flux, tiny_wan
from .catalogue import EXAMPLES, LORA
from .controlnet import CONTROLNET
from .parts import Example, node

ENCODERS = {"CLIPLoader", "DualCLIPLoader"}
MEASURING = {"GQMeasureSensitivity", "GQCalibrateActivations"}
# Half of the tiny Flux in float32.
TINY_SIZE_GIB = 0.018
PICTURES = {"SaveImage", "SaveAnimatedWEBP", "ImageCompare"}


def on_tiny_model(example: Example) -> dict:
    """The example's prompt as a test can run it: a small picture in few steps, seeded noise for
    what is encoded, the latent saved where a VAE would decode it, nothing that is muted."""
    tiny = example.tiny
    prompt = {}
    for name, original in example.running.items():
        kind, inputs = original["class_type"], dict(original["inputs"])
        if kind in PICTURES or kind in ("VAELoader", "GQQuantizeVAE"):
            continue
        if kind in ENCODERS:
            original = node("LabDualClip", clip_l=CLIP_L, t5xxl=T5XXL)
        elif kind == "VAEDecode":
            original = node("SaveLatent", samples=inputs["samples"], filename_prefix=example.name)
        elif kind == "KSampler":
            original = node(kind, **{**inputs, "steps": 2})
        elif kind in MEASURING:
            original = node(kind, **{**inputs, "steps": 1})
        elif kind == "GQQuantizeModel" and inputs.get("size_gib"):
            original = node(kind, **{**inputs, "size_gib": TINY_SIZE_GIB})
        elif kind == "LoadImage":
            original = node("EmptyImage", batch_size=1, color=0x808080, **_size(tiny, inputs))
        elif kind == "ControlNetApplyAdvanced":
            original = node(kind, **{key: inputs[key] for key in inputs if key != "vae"})
        elif kind == "GQSaveQuantizedModel":
            original = node(kind, **{**inputs, "overwrite": True})
        elif kind == "Wan22ImageToVideoLatent":
            original = node("EmptyHunyuanLatentVideo", batch_size=1, **_size(tiny, inputs))
        elif kind.startswith("Empty"):
            original = node(kind, **{**inputs, **_size(tiny, inputs)})
        elif kind == "CLIPTextEncode" and tiny is WAN:
            original = node("LabConditioning", seed=1, width=tiny.context_width)
        prompt[name] = original
    return prompt


def _size(tiny: TinyModel, inputs: dict) -> dict:
    size = {"width": tiny.latent[-1] * 8, "height": tiny.latent[-2] * 8}
    return size | ({"length": 5} if "length" in inputs else {})


def tiny_files(models: Path) -> None:
    """Write the files that the examples name, tiny, into ComfyUI's ``models`` folder."""
    dual_clip_files(models / "text_encoders")
    _tiny_lora(models / "loras" / LORA)
    tiny_controlnet_file(models / "controlnet" / CONTROLNET)
    for example in EXAMPLES:
        write = tiny_wan if example.tiny is WAN else tiny_flux
        file = models / "diffusion_models" / example.prompt["load"]["inputs"]["unet_name"]
        if not file.exists():
            write(file, 256)


def _tiny_lora(file: Path, hidden: int = 256, rank: int = 4) -> None:
    """A LoRA of one layer of the tiny Flux."""
    generator = torch.Generator().manual_seed(0)
    layer = "diffusion_model.double_blocks.0.img_attn.qkv"
    down = torch.randn(rank, hidden, generator=generator)
    up = torch.randn(3 * hidden, rank, generator=generator)
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file({f"{layer}.lora_A.weight": down / hidden, f"{layer}.lora_B.weight": up}, file)
