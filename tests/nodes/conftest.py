"""VAEs and text encoders for the tests of the nodes and of the bridge."""

import pytest
import torch

from lab import tiny_clips


@pytest.fixture(scope="session")
def vae_file(comfy, models_folder):
    """``vae_file(tiny)``: the checkpoint, written once, where the live server finds it."""
    from lab.tiny_vaes import tiny_vae_file

    folder = models_folder.parent / "vae"

    def write(tiny):
        path = folder / tiny.file
        return path if path.exists() else tiny_vae_file(tiny, folder)

    return write


@pytest.fixture
def load_vae(vae_file, inference_mode):
    """``load_vae(tiny)``: the VAE as ComfyUI loads it; the test runs in inference mode."""
    import comfy.sd
    import comfy.utils

    def load(tiny):
        state, metadata = comfy.utils.load_torch_file(str(vae_file(tiny)), return_metadata=True)
        return comfy.sd.VAE(sd=state, metadata=metadata)

    return load


@pytest.fixture(scope="session")
def clip_files(comfy, tmp_path_factory):
    """A tiny CLIP-L and a tiny T5-XXL."""
    return tiny_clips.dual_clip_files(tmp_path_factory.mktemp("text_encoders"))


@pytest.fixture(scope="session")
def clip(clip_files):
    """A dual CLIP of FLUX.1's kind, tiny. No test may change it: all have this one."""
    from lab.nodes.clip import load_dual_clip

    with torch.inference_mode():
        return load_dual_clip(*clip_files)


@pytest.fixture(scope="session")
def qwen_clip(comfy):
    """A CLIP of Z-Image's kind, tiny. No test may change it."""
    with torch.inference_mode():
        return tiny_clips.qwen_clip()
