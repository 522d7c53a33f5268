"""VAEs, text encoders and reports for the tests of the nodes and of the bridge."""

import json

import pytest
import torch

from lab import tiny_clips
from lab.nodes.noise import conditioning
from lab.tiny_models import FLUX


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
def deep_clip_files(comfy, tmp_path_factory):
    """A tiny CLIP-L, and a T5 of 24 layers: by the last of them ComfyUI knows a T5-XXL."""
    return tiny_clips.dual_clip_files(tmp_path_factory.mktemp("clips"), deep=True)


@pytest.fixture(scope="session")
def load_dual_clip(comfy):
    """``lab.nodes.clip.load_dual_clip``, which cannot be imported before ComfyUI."""
    from lab.nodes import clip

    return clip.load_dual_clip


@pytest.fixture(scope="session")
def clip(clip_files, load_dual_clip):
    """A dual CLIP of FLUX.1's kind, tiny. No test may change it: all have this one."""
    with torch.inference_mode():
        return load_dual_clip(*clip_files)


@pytest.fixture(scope="session")
def qwen_clip(comfy):
    """A CLIP of Z-Image's kind, tiny. No test may change it."""
    with torch.inference_mode():
        return tiny_clips.qwen_clip()


@pytest.fixture
def with_lora(comfy):
    """``with_lora(patcher, layers, scale=0.1, seed=1)`` -> a clone with a LoRA of rank 4 on
    ``layers``, and the change of each one's weight by name."""
    import comfy.lora

    def run(patcher, layers, scale=0.1, seed=1):
        generator = torch.Generator().manual_seed(seed)
        lora, deltas = {}, {}
        for layer in layers:
            n, k = patcher.model.diffusion_model.get_submodule(layer).weight.shape
            up = torch.randn(n, 4, generator=generator) * scale
            down = torch.randn(4, k, generator=generator) * 0.1
            lora[f"diffusion_model.{layer}.lora_up.weight"] = up
            lora[f"diffusion_model.{layer}.lora_down.weight"] = down
            deltas[layer] = up @ down
        patched = patcher.clone()
        keys = comfy.lora.model_lora_keys_unet(patcher.model, {})
        assert patched.add_patches(comfy.lora.load_lora(lora, keys))
        return patched, deltas

    return run


@pytest.fixture
def quantize():
    """``quantize(model, method)`` -> the MODEL of Quantize Model."""
    from graphquant.nodes.quantize_model import GQQuantizeModel

    return lambda model, method: GQQuantizeModel.execute(model, method).result[0]


@pytest.fixture
def measure():
    """``measure(model, reference, **inputs)`` -> Quantization Report's JSON output as values."""
    from graphquant.nodes.quantization_report import GQQuantizationReport

    def run(model, reference=None, **inputs):
        output = GQQuantizationReport.execute(model, reference, **inputs)
        return json.loads(output.result[1])

    return run


@pytest.fixture
def short_run():
    """The inputs of a calibration run of one step."""
    positive = conditioning(
        0, FLUX.context_width, FLUX.context_length, FLUX.pooled_width, FLUX.guidance
    )
    return {
        "positive": positive,
        "latent_image": {"samples": torch.zeros(1, *FLUX.latent)},
        "steps": 1,
    }
