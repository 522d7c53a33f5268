"""Every architecture's module tree at its real size, on the meta device, by ComfyUI's own classes.

No weight is allocated, so a 33-billion-parameter model takes a fraction of a second. Call
``lab.comfyui.import_comfyui`` first.
"""

from __future__ import annotations

import torch
from torch import nn

from .encoders import TEXT_ENCODERS, text_encoder
from .image import IMAGE_TREES
from .tree import Tree
from .unet import UNET_TREES
from .unlisted import UNLISTED_TREES
from .video import VIDEO_TREES

__all__ = ["TEXT_ENCODERS", "TREES", "UNLISTED_TREES", "base_model", "text_encoder"]

TREES: dict[str, Tree] = IMAGE_TREES | UNET_TREES | VIDEO_TREES


def base_model(name: str) -> nn.Module:
    """ComfyUI's BaseModel (``patcher.model``) for one of ``TREES`` or ``UNLISTED_TREES``, bf16."""
    from comfy.model_detection import model_config_from_unet_config

    tree = (TREES | UNLISTED_TREES)[name]
    config = model_config_from_unet_config(tree.config)
    config.set_inference_dtype(torch.bfloat16, None)
    return config.get_model({}, device="meta")
