"""A scheduled LoRA (ComfyUI's hooks) goes on and off a quantized model as scheduled."""

import pytest
import torch

from graphquant.quant_core import plan_component
from lab.nodes.noise import conditioning
from lab.tiny_models import FLUX

pytestmark = pytest.mark.usefixtures("comfy")

LAYER = "diffusion_model.double_blocks.0.img_attn.qkv"


def quantize(patcher, method):
    from graphquant.nodes.bridge.model.quantize_patcher import quantize_patcher

    plan = plan_component(patcher.model.diffusion_model, method, preset="flux1")
    plans = {"diffusion_model.": plan}
    return quantize_patcher(patcher, plans, compute_dtype=torch.float32)[0]


def sample(patcher, strengths=None):
    """4 steps, with a LoRA of these strengths in turn, one for each quarter of the schedule."""
    import comfy.hooks
    import comfy.sample

    positive = conditioning(0, FLUX.context_width, FLUX.context_length, FLUX.pooled_width, 3.5)
    if strengths:
        keyframes = comfy.hooks.HookKeyframeGroup()
        for quarter, strength in enumerate(strengths):
            keyframes.add(comfy.hooks.HookKeyframe(strength, start_percent=quarter / 4))
        hooks = comfy.hooks.create_hook_lora(lora(patcher), 1.0, 0.0)
        hooks.set_keyframes_on_hooks(keyframes)
        positive = comfy.hooks.set_hooks_for_conditioning(positive, hooks)
    latent = torch.zeros(1, *FLUX.latent)
    noise = comfy.sample.prepare_noise(latent, 0)
    inputs = (4, 1.0, "euler", "simple", positive, positive, latent)
    return comfy.sample.sample(patcher, noise, *inputs, seed=0, disable_pbar=True)


def lora(patcher):
    generator = torch.Generator().manual_seed(1)
    n, k = patcher.get_model_object(LAYER).weight.shape
    return {
        f"{LAYER}.lora_up.weight": torch.randn(n, 4, generator=generator) * 0.1,
        f"{LAYER}.lora_down.weight": torch.randn(4, k, generator=generator) * 0.1,
    }


@pytest.mark.parametrize("method", ["int8", "int4"])
def test_a_lora_by_schedule_acts_as_on_the_plain_model_and_leaves_nothing_behind(
    flux_patcher, method
):
    schedule = (1.0, 0.0, 1.0, 0.5)
    exact = sample(flux_patcher, schedule) - sample(flux_patcher)
    quantized = quantize(flux_patcher, method)
    before = sample(quantized)
    effect = sample(quantized, schedule) - before
    assert torch.cosine_similarity(effect.flatten(), exact.flatten(), 0).item() > 0.95
    assert 0.9 < (effect.norm() / exact.norm()).item() < 1.1
    assert torch.equal(sample(quantized), before)


def test_what_hooks_hold_of_the_original_stays_with_the_original(flux_patcher):
    quantized = quantize(flux_patcher, "int8")
    assert quantized.hook_backup is not flux_patcher.hook_backup
