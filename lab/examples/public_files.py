"""Where the public files lie that the examples name, as ComfyUI's own templates tell it.

Tested by tests/lab/test_examples.py.
"""

from __future__ import annotations

_HUB = "https://huggingface.co"
_FLUX_TEXT = f"{_HUB}/comfyanonymous/flux_text_encoders/resolve/main"
_WAN = f"{_HUB}/Comfy-Org/Wan_2.1_ComfyUI_repackaged/resolve/main/split_files"
_WAN_22 = f"{_HUB}/Comfy-Org/Wan_2.2_ComfyUI_Repackaged/resolve/main/split_files"
_PIXEL_ART = f"{_HUB}/tarn59/pixel_art_style_lora_z_image_turbo/resolve/main"
_Z_IMAGE = f"{_HUB}/Comfy-Org/z_image_turbo/resolve/main/split_files"
_QWEN = f"{_HUB}/Comfy-Org/Qwen-Image_ComfyUI/resolve/main/split_files"
_QWEN_CONTROL = f"{_HUB}/Comfy-Org/Qwen-Image-InstantX-ControlNets/resolve/main/split_files"

# The folder of models/ that a file belongs to, and the folder on the web that has it.
_PLACES = {
    "flux1-dev.safetensors": ("diffusion_models", f"{_HUB}/Comfy-Org/flux1-dev/resolve/main"),
    "clip_l.safetensors": ("text_encoders", _FLUX_TEXT),
    "t5xxl_fp16.safetensors": ("text_encoders", _FLUX_TEXT),
    "ae.safetensors": ("vae", f"{_Z_IMAGE}/vae"),
    "umt5_xxl_fp16.safetensors": ("text_encoders", f"{_WAN}/text_encoders"),
    "wan2.2_ti2v_5B_fp16.safetensors": ("diffusion_models", f"{_WAN_22}/diffusion_models"),
    "wan2.2_vae.safetensors": ("vae", f"{_WAN_22}/vae"),
    "pixel_art_style_z_image_turbo.safetensors": ("loras", _PIXEL_ART),
    "z_image_turbo_bf16.safetensors": ("diffusion_models", f"{_Z_IMAGE}/diffusion_models"),
    "qwen_3_4b.safetensors": ("text_encoders", f"{_Z_IMAGE}/text_encoders"),
    "qwen_image_fp8_e4m3fn.safetensors": ("diffusion_models", f"{_QWEN}/diffusion_models"),
    "qwen_2.5_vl_7b_fp8_scaled.safetensors": ("text_encoders", f"{_QWEN}/text_encoders"),
    "qwen_image_vae.safetensors": ("vae", f"{_QWEN}/vae"),
    "Qwen-Image-InstantX-ControlNet-Union.safetensors": (
        "controlnet",
        f"{_QWEN_CONTROL}/controlnet",
    ),
}


def public_files(inputs: dict) -> list[dict]:
    """What the editor offers to download for a node with these inputs: name, url, directory."""
    names = [value for value in inputs.values() if isinstance(value, str) and value in _PLACES]
    return [
        {"name": name, "url": f"{_PLACES[name][1]}/{name}", "directory": _PLACES[name][0]}
        for name in names
    ]
