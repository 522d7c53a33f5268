"""Quantizing, saving and loading models, for the tests of the bridge."""

import pytest
import torch

from graphquant.quant_core import plan_component


@pytest.fixture
def quantize(comfy):
    """``quantize(patcher, method="int8", granularity="per-row", **options)`` -> patcher."""
    from graphquant.nodes.patching.patcher import quantize_patcher

    def run(patcher, method="int8", granularity="per-row", preset="generic", **options):
        plan = plan_component(
            patcher.model.diffusion_model,
            method,
            granularity=granularity,
            preset=preset,
            **options,
        )
        plans = {"diffusion_model.": plan}
        return quantize_patcher(patcher, plans, compute_dtype=torch.float32)[0]

    return run


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
def save(comfy):
    """``save(patcher, path, **options)`` -> report."""
    from graphquant.nodes.patching.saving import save_quantized_model

    return save_quantized_model


@pytest.fixture
def load(comfy):
    """``load(path)`` -> patcher, report."""
    from graphquant.nodes.patching.loading import load_quantized_model

    return load_quantized_model


@pytest.fixture
def latent(sample):
    """``latent(patcher)``: one sampling step, which a wrong weight anywhere would change."""
    return lambda patcher: sample(patcher, steps=1)


@pytest.fixture
def file(tmp_path):
    return tmp_path / "saved.safetensors"
