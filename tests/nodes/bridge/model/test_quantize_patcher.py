"""A quantized ModelPatcher survives what ComfyUI does to models."""

import gc
import weakref

import pytest
import torch

from graphquant.quant_core import plan_component

pytestmark = pytest.mark.usefixtures("comfy")

RIGHT_AWAY = [*("fp8-weight-only", "int8", "int8-dynamic", "int4"), "int8-convrot", "w4a8", "w6a8"]
# Here without a calibration, for the machinery alone: test_svdquant_server.py has effects.
METHODS = [*RIGHT_AWAY, "svdquant-int4", "svdquant-nvfp4"]
LORA_LAYER = "double_blocks.0.img_attn.qkv"


def quantize(patcher, method="int8", **options):
    from graphquant.nodes.bridge.model.quantize_patcher import quantize_patcher

    plan = plan_component(patcher.model.diffusion_model, method, preset="flux1", **options)
    prefix = "diffusion_model."
    quantized, reports = quantize_patcher(patcher, {prefix: plan}, compute_dtype=torch.float32)
    return quantized, reports[prefix]


def with_lora(patcher, strength=1.0, scale=0.1, rank=4, layer=LORA_LAYER, seed=1):
    import comfy.lora

    generator = torch.Generator().manual_seed(seed)
    n, k = patcher.model.diffusion_model.get_submodule(layer).weight.shape
    name = f"diffusion_model.{layer}"
    lora = {
        f"{name}.lora_up.weight": torch.randn(n, rank, generator=generator) * scale,
        f"{name}.lora_down.weight": torch.randn(rank, k, generator=generator) * 0.1,
    }
    patched = patcher.clone()
    keys = comfy.lora.model_lora_keys_unet(patcher.model, {})
    assert patched.add_patches(comfy.lora.load_lora(lora, keys), strength)
    return patched


def call(patcher):
    """One call of the diffusion model as it is loaded now."""
    generator = torch.Generator().manual_seed(3)
    inputs = (
        torch.randn(1, 16, 16, 16, generator=generator),
        torch.tensor([0.7]),
        torch.randn(1, 32, 256, generator=generator),
        torch.randn(1, 64, generator=generator),
        torch.tensor([3.5]),
    )
    return patcher.model.diffusion_model(*inputs)


def loaded_call(patcher):
    import comfy.model_management

    comfy.model_management.load_models_gpu([patcher])
    return call(patcher)


def relative(a, b):
    return ((a - b).norm() / b.norm()).item()


def test_the_input_is_bit_identical_before_and_after(flux_patcher, sample):
    before = sample(flux_patcher)
    quantized, _ = quantize(flux_patcher)
    result = sample(quantized)
    assert torch.equal(sample(flux_patcher), before)
    assert 1e-4 < relative(result, before) < 0.02


@pytest.mark.parametrize("method", METHODS)
def test_model_size_report_and_plan_agree_to_the_byte(flux_patcher, method):
    import comfy.model_management

    quantized, report = quantize(flux_patcher, method)
    size = comfy.model_management.module_size(quantized.model)
    assert quantized.model_size() == report.model_bytes_after == size
    assert report.model_bytes_before == flux_patcher.model_size()
    saved = report.quantized_bytes_before - report.quantized_bytes_after
    assert report.model_bytes_before - size == saved


@pytest.mark.parametrize("method", METHODS)
def test_a_partial_load_computes_what_a_full_load_computes(flux_patcher, method):
    quantized, _ = quantize(flux_patcher, method)
    full = loaded_call(quantized)
    quantized.detach()
    for share in (0.3, 0.6, 0.9):
        budget = int(quantized.model_size() * share)
        quantized.load(torch.device("cpu"), lowvram_model_memory=budget)
        low = [m for m in quantized.model.modules() if getattr(m, "comfy_cast_weights", False)]
        assert low, share
        assert torch.equal(call(quantized), full), share
        quantized.detach()


@pytest.mark.parametrize("method", METHODS)
def test_a_partial_load_with_a_lora_computes_what_a_full_load_computes(flux_patcher, method):
    quantized, _ = quantize(flux_patcher, method)
    patched = with_lora(quantized)
    full = loaded_call(patched)
    patched.detach()
    patched.load(torch.device("cpu"), lowvram_model_memory=1)
    layer = patched.model.diffusion_model.get_submodule(LORA_LAYER)
    assert len(layer.weight_function) == 1
    assert relative(call(patched), full) < 2e-6
    patched.detach()


def test_unload_and_reload_is_bit_equal(flux_patcher, sample):
    import comfy.model_management

    quantized, _ = quantize(flux_patcher)
    before = sample(quantized)
    comfy.model_management.unload_all_models()
    assert torch.equal(sample(quantized), before)


@pytest.mark.parametrize("method", RIGHT_AWAY)
def test_a_lora_after_quantizing_acts_and_comes_off_bit_exactly(flux_patcher, sample, method):
    plain = sample(flux_patcher)
    exact = sample(with_lora(flux_patcher)) - plain
    quantized, _ = quantize(flux_patcher, method)
    before = sample(quantized)
    effect = sample(with_lora(quantized)) - before
    cosine = torch.cosine_similarity(effect.flatten(), exact.flatten(), 0).item()
    bounds = {
        "int4": 0.95,
        "int8-dynamic": 0.95,
        "int8-convrot": 0.985,
        "w4a8": 0.97,
        "w6a8": 0.985,
    }
    assert cosine > bounds.get(method, 0.995)
    assert 0.95 < ((effect * exact).sum() / (exact * exact).sum()).item() < 1.05
    assert torch.equal(sample(quantized), before)


@pytest.mark.parametrize("method", ["fp8-weight-only", "int8", "int4"])
def test_a_lora_a_thousand_times_smaller_than_the_weights_still_acts(flux_patcher, method):
    """Rounding would swallow it: half a step of int8 is larger."""
    quantized, _ = quantize(flux_patcher, method)
    weight = quantized.model.diffusion_model.get_submodule(LORA_LAYER).weight
    scale = 1e-3 * weight.dequantize().std().item() / 0.2
    patched = with_lora(quantized, scale=scale)
    exact = with_lora(flux_patcher, scale=scale)
    before = loaded_call(quantized)
    ours = loaded_call(patched) - before
    plain = loaded_call(flux_patcher)
    wanted = loaded_call(exact) - plain
    recovered = (ours * wanted).sum() / (wanted * wanted).sum()
    assert 0.9 < recovered.item() < 1.1


@pytest.mark.parametrize("method", METHODS)
def test_a_lora_before_quantizing_is_rounded_once(flux_patcher, method):
    patched = with_lora(flux_patcher)
    quantized, report = quantize(patched, method)
    assert f"diffusion_model.{LORA_LAYER}.weight" not in quantized.patches
    import comfy.lora

    key = f"diffusion_model.{LORA_LAYER}.weight"
    weight = flux_patcher.model.diffusion_model.get_submodule(LORA_LAYER).weight
    exact = comfy.lora.calculate_weight(patched.patches[key], weight.float().clone(), key)
    fmt = next(layer.format for layer in report.plan.quantized if layer.name == LORA_LAYER)
    baked = quantized.model.diffusion_model.get_submodule(LORA_LAYER).weight.dequantize()
    assert torch.equal(baked, fmt.quantize(exact).dequantize())
    assert relative(exact, weight) > 0.1


def test_a_lora_loaded_in_a_clone_is_not_quantized_in(flux_patcher, sample):
    """The shared module holds the clone's patched weights while that clone is loaded."""
    clean, _ = quantize(flux_patcher)
    expected = sample(clean)
    sample(with_lora(flux_patcher))
    quantized, _ = quantize(flux_patcher)
    assert torch.equal(sample(quantized), expected)


def test_an_independent_patcher_of_the_same_model_can_be_made(flux_patcher, sample):
    """What TorchCompileModel, hooks and multi-GPU ask of a dynamic patcher."""
    quantized, _ = quantize(flux_patcher)
    patched = with_lora(quantized)
    expected, expected_patched = sample(quantized), sample(patched)
    rebuilt = quantized.clone(force_deepcopy=True)
    assert rebuilt.model is not quantized.model
    assert torch.equal(sample(rebuilt), expected)
    sample(patched)  # its LoRA is in the module while the next one is built
    assert torch.equal(sample(patched.clone(force_deepcopy=True)), expected_patched)
    assert torch.equal(sample(rebuilt), expected)


def test_the_original_weights_die_with_the_graphs_last_reference(tiny_flux_file, inference_mode):
    import comfy.model_management
    import comfy.sd

    patcher = comfy.sd.load_diffusion_model(str(tiny_flux_file))
    quantized, _ = quantize(patcher)
    weight = weakref.ref(patcher.model.diffusion_model.get_submodule(LORA_LAYER).weight)
    loaded_call(quantized)
    comfy.model_management.unload_all_models()
    del patcher
    gc.collect()
    assert weight() is None


def test_a_merge_with_a_plain_model_works_on_both_sides(flux_patcher, sample):
    from comfy_extras.nodes_model_merging import ModelMergeSimple

    # Each merged layer is searched for low-rank factors: two blocks show what all would.
    layers = ("double_blocks.0", "single_blocks.0")
    quantized, _ = quantize(flux_patcher, "int4", include=layers)
    plain = sample(flux_patcher)
    onto_plain = ModelMergeSimple().merge(flux_patcher, quantized, 0.5)[0]
    whole = relative(sample(quantized), plain)
    assert 0.2 * whole < relative(sample(onto_plain), plain) < 0.9 * whole
    onto_quantized = ModelMergeSimple().merge(quantized, flux_patcher, 0.5)[0]
    assert relative(sample(onto_quantized), plain) < 1.1 * whole


def test_an_error_in_the_middle_leaves_the_model_and_the_next_run_as_they_were(
    flux_patcher, sample, monkeypatch
):
    import comfy.model_management

    before = sample(flux_patcher)
    calls = []

    def cancel():
        calls.append(1)
        if len(calls) == 5:
            raise comfy.model_management.InterruptProcessingException

    with monkeypatch.context() as patch:
        patch.setattr(comfy.model_management, "throw_exception_if_processing_interrupted", cancel)
        with pytest.raises(comfy.model_management.InterruptProcessingException):
            quantize(flux_patcher)
    assert torch.equal(sample(flux_patcher), before)
    quantized, _ = quantize(flux_patcher)
    assert relative(sample(quantized), before) < 0.02


class Stopped(Exception):
    pass


def test_memory_is_asked_for_before_the_first_weight_goes_to_a_gpu(flux_patcher, monkeypatch):
    """As much as the largest layer takes, and more where a LoRA is added on the GPU."""
    import comfy.model_management

    from graphquant.nodes.bridge.model import quantize_patcher as room

    asked, gpu = [], torch.device("cuda", 0)

    def free_memory(needed, device, *_):
        if device == gpu:  # to unload the model ComfyUI frees its own device
            asked.append((needed, device))
            raise Stopped

    monkeypatch.setattr(comfy.model_management, "free_memory", free_memory)
    plan = plan_component(flux_patcher.model.diffusion_model, "int8", preset="flux1")
    largest = max(plan.quantized, key=lambda layer: layer.bytes_before)
    for patcher in (flux_patcher, with_lora(flux_patcher, layer=largest.name)):
        with pytest.raises(Stopped):
            room.quantize_patcher(
                patcher, {"diffusion_model.": plan}, compute_dtype=torch.float32, device=gpu
            )
    working = 256 * 2**20
    assert asked[0] == (2 * largest.bytes_before + largest.bytes_after + working, gpu)
    assert asked[1][0] > asked[0][0]
    asked.clear()
    quantize(flux_patcher)  # on the CPU nobody has to go
    assert asked == []
