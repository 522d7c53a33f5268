"""The example of Quantize ControlNet."""

from __future__ import annotations

from ..tiny_models import FLUX
from .parts import Example, decode, image, node, sample, text

CONTROLNET = "Qwen-Image-InstantX-ControlNet-Union.safetensors"

QUANTIZE_CONTROLNET = Example(
    "Qwen-Image with a ControlNet in INT8",
    ("INT8", "ControlNet", "Qwen-Image"),
    "## A ControlNet at half its size\n\n**Quantize ControlNet** stands between the loader and "
    "Apply ControlNet. Its layers, convolutions too, are stored in INT8; the ends that read the "
    "hint are kept.\n\nThe diffusion model here is FP8 already, as its file is. A T2I-Adapter and "
    "a Control-LoRA go in the same way, and a model patch into **model_patch**.",
    {
        "load": node(
            "UNETLoader", unet_name="qwen_image_fp8_e4m3fn.safetensors", weight_dtype="default"
        ),
        "clip": node(
            "CLIPLoader", clip_name="qwen_2.5_vl_7b_fp8_scaled.safetensors", type="qwen_image"
        ),
        "vae": node("VAELoader", vae_name="qwen_image_vae.safetensors"),
        "load_control": node("ControlNetLoader", control_net_name=CONTROLNET),
        "quantize_control": node(
            "GQQuantizeControlNet", control_net=["load_control", 0], method="int8"
        ),
        "picture": node("LoadImage", image="example.png"),
        "edges": node("Canny", image=["picture", 0], low_threshold=0.3, high_threshold=0.6),
        "positive_text": text("clip", "a paper-cut landscape, layered, soft studio light"),
        "negative_text": text("clip", " "),
        "positive": node(
            "ControlNetApplyAdvanced",
            positive=["positive_text", 0],
            negative=["negative_text", 0],
            control_net=["quantize_control", 0],
            image=["edges", 0],
            vae=["vae", 0],
            strength=1.0,
            start_percent=0.0,
            end_percent=1.0,
        ),
        "shift": node("ModelSamplingAuraFlow", model=["load", 0], shift=3.1),
        "latent": image(1024, 1024),
        "sample": sample("shift", "positive", slot=1, steps=20, cfg=2.5),
        "decode": decode("sample"),
        "save": node("SaveImage", images=["decode", 0], filename_prefix="qwen-controlnet-int8"),
    },
    (
        ("note", "load", "clip", "vae", "load_control"),
        ("quantize_control", "picture"),
        ("edges", "positive_text", "negative_text"),
        ("positive", "shift", "latent"),
        ("sample", "decode"),
        ("save",),
    ),
    FLUX,
    subject="quantize_control",
)
