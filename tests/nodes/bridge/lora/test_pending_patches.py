"""A LoRA that waits beside a weight computes what it computes where it is loaded: in a partial load
(test_patcher.py, test_adapter_kinds.py), and in dynamic VRAM, which is stood in for on the CPU."""

import pytest
import torch

from lab.dynamic_vram import dynamic_vram

pytestmark = pytest.mark.usefixtures("comfy")

LAYERS = ["double_blocks.0.img_attn.qkv", "single_blocks.1.linear2"]


@pytest.fixture
def staged(flux_patcher, monkeypatch):
    """``staged(budget)``: the tiny Flux in a dynamic patcher, and how its layers were called."""

    def make(budget=None):
        patcher_class, calls = dynamic_vram(monkeypatch, budget)
        devices = flux_patcher.load_device, flux_patcher.offload_device
        return patcher_class(flux_patcher.model, *devices), calls

    return make


def forward(patcher):
    """One call of the diffusion model as it is loaded now."""
    generator = torch.Generator().manual_seed(3)
    shapes = (1, 16, 16, 16), (1,), (1, 32, 256), (1, 64), (1,)
    inputs = [torch.randn(*shape, generator=generator) for shape in shapes]
    return patcher.model.diffusion_model(*inputs)


def call(patcher):
    import comfy.model_management

    comfy.model_management.load_models_gpu([patcher])
    return forward(patcher)


def loaded_fully(patcher):
    """``patcher``'s own model and LoRAs in a patcher without dynamic VRAM."""
    return call(patcher.clone(disable_dynamic=True))


def with_adapter(patcher, **weights):
    import comfy.lora

    patched = patcher.clone()
    keys = comfy.lora.model_lora_keys_unet(patcher.model, {})
    state = {f"diffusion_model.{LAYERS[0]}.{name}": part for name, part in weights.items()}
    assert patched.add_patches(comfy.lora.load_lora(state, keys))
    return patched


def relative(a, b):
    return ((a - b).norm() / b.norm()).item()


@pytest.mark.parametrize("budget", [None, 3_000_000], ids=["room", "little room"])
@pytest.mark.parametrize("method", ["int8", "int8-dynamic", "int8-convrot", "w4a8"])
def test_a_staged_model_computes_what_a_loaded_one_does_from_the_first_call_on(
    staged, quantize, with_lora, method, budget
):
    """int8-dynamic tells: patched as stock patches it, a weight is multiplied by float rows."""
    patcher, calls = staged(budget)
    quantized = quantize(patcher, method)
    before = call(quantized)
    assert torch.equal(before, loaded_fully(quantized))
    assert torch.equal(call(quantized), before)
    assert calls["staged"] == calls["resident"] > 0
    assert bool(calls["without room"]) is bool(budget)
    patched, _ = with_lora(quantized, LAYERS)
    expected = loaded_fully(patched)
    assert relative(expected, before) > 0.01
    first = call(patched)
    assert relative(first, expected) < 1e-6
    assert torch.equal(call(patched), first)
    assert torch.equal(call(quantized), before)


def test_what_is_more_than_branches_is_patched_as_the_weight_is_staged(staged, quantize):
    patcher, _ = staged()
    quantized = quantize(patcher)
    before = call(quantized)
    n, k = quantized.model.diffusion_model.get_submodule(LAYERS[0]).weight.shape
    patched = with_adapter(quantized, diff=torch.randn(n, k) * 0.02)
    call(patched)
    assert relative(call(patched), loaded_fully(patched)) < 1e-6
    assert relative(call(patched), before) > 1e-3
    assert torch.equal(call(quantized), before)


def test_a_loras_factors_are_copied_to_the_device_once_a_run_and_go_with_the_model(
    staged, quantize, with_lora, monkeypatch
):
    import comfy.model_management

    from graphquant.nodes.bridge.lora import pending_patches as pending

    made = []
    adapter_change = pending.adapter_change
    monkeypatch.setattr(
        pending, "adapter_change", lambda *given: made.append(1) or adapter_change(*given)
    )
    patcher, _ = staged()
    patched, _ = with_lora(quantize(patcher), LAYERS)
    first = call(patched)
    assert torch.equal(forward(patched), first)
    assert len(made) == len(LAYERS)
    comfy.model_management.unload_all_models()
    layers = [patched.model.diffusion_model.get_submodule(name) for name in LAYERS]
    for layer in layers:
        assert pending.STAGED_CHANGE not in layer.__dict__
        assert layer._v_weight is None
