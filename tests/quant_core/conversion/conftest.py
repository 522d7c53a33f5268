"""Model files for the tests of conversion, made without ComfyUI."""

import pytest
import torch
from safetensors.torch import save_file


def model_tensors(seed=0):
    """Names of FLUX.1's, at a size that takes no time: 10 Linear layers, 6 of which stay."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return (torch.randn(*shape, generator=generator) * 0.05).bfloat16()

    shapes = {
        "img_in": (128, 64),
        "txt_in": (128, 96),
        "time_in.in_layer": (128, 256),
        "vector_in.in_layer": (128, 64),
        "double_blocks.0.img_attn.qkv": (384, 128),
        "double_blocks.0.img_attn.proj": (128, 128),
        "single_blocks.0.linear1": (896, 128),
        "single_blocks.0.linear2": (128, 640),
        "final_layer.adaLN_modulation.1": (256, 128),
        "final_layer.linear": (64, 128),
    }
    tensors = {f"{name}.weight": normal(*shape) for name, shape in shapes.items()}
    tensors |= {f"{name}.bias": normal(shape[0]) for name, shape in shapes.items()}
    tensors["double_blocks.0.img_attn.norm.key_norm.scale"] = normal(32)
    return tensors


@pytest.fixture
def model_file(tmp_path):
    """A file of FLUX.1's names with metadata; the tests may spoil it."""
    path = tmp_path / "model.safetensors"
    save_file(model_tensors(), path, {"modelspec.title": "Small", "format": "pt"})
    return path


@pytest.fixture
def tensors():
    """What ``model_file`` holds."""
    return model_tensors()
