"""A change is found again, exactly, among the patchers that may have made it."""

import pytest
import torch

pytestmark = pytest.mark.usefixtures("comfy")

CPU = torch.device("cpu")


def gaussian(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def lora_patch(seed=0, strength=1.0, dora=None):
    from comfy.weight_adapter.lora import LoRAAdapter

    up, down = gaussian(96, 4, seed=seed), gaussian(4, 128, seed=seed + 100)
    adapter = LoRAAdapter(set(), (up, down, None, None, dora, None))
    return (strength, adapter, 1.0, None, None)


def added_by_comfyui(patches):
    """What stock patching adds to a weight of zeros."""
    import comfy.lora

    return comfy.lora.calculate_weight(patches, torch.zeros(96, 128), "key")


def source_of(*patch_lists):
    from comfy.model_patcher import ModelPatcher

    from graphquant.nodes.bridge.lora.adapters import LivePatchers, PatchSource

    patchers = LivePatchers()
    base = ModelPatcher(torch.nn.Identity(), CPU, CPU)
    patchers.follow(base)
    alive = [base.clone() for _ in patch_lists]
    for patcher, patches in zip(alive, patch_lists, strict=True):
        patcher.patches["key"] = patches
    return PatchSource("key", patchers), alive


def test_of_several_live_patchers_the_one_that_was_added_is_found():
    lists = [[lora_patch(seed=seed, strength=0.01)] for seed in (1, 2, 3)]
    source, _alive = source_of(*lists)
    base = gaussian(96, 128, seed=9)
    for patches in lists:
        delta = added_by_comfyui(patches)
        change = source.change(base, base + delta, tolerance=1e-3 * delta.norm().item())
        assert torch.allclose(change.lora_up @ change.lora_down, delta, atol=1e-6)


def test_a_dead_patcher_is_forgotten():
    patches = [lora_patch()]
    source, alive = source_of(patches)
    alive.clear()
    assert source.change(torch.zeros(96, 128), added_by_comfyui(patches), tolerance=1.0) is None


def test_nothing_near_enough_is_nothing():
    source, _alive = source_of([lora_patch(seed=1)])
    other = added_by_comfyui([lora_patch(seed=2)])
    tolerance = 1e-3 * other.norm().item()
    assert source.change(torch.zeros(96, 128), other, tolerance) is None


@pytest.mark.usefixtures("inference_mode")
def test_a_small_lora_survives_being_added_in_float16():
    """What most GPUs do: the sum's rounding is as large as the LoRA itself."""
    from graphquant.nodes.bridge.tensor.layout import quantized_tensor
    from graphquant.quant_core.formats import Int8

    patches = [lora_patch(strength=2e-4)]
    source, _alive = source_of(patches)
    weight = quantized_tensor(Int8().quantize(gaussian(96, 128, seed=9)), torch.float32, source)
    delta = added_by_comfyui(patches)
    original = weight.to(torch.float16).dequantize()
    summed = original + delta.half()
    lost = ((summed - original).float() - delta).norm() / delta.norm()
    patched = weight.requantize_from_float(summed)
    kept = patched.dequantize() - weight.dequantize().half()
    assert lost > 0.1
    assert torch.allclose(
        patched._params.lora_up @ patched._params.lora_down, delta, rtol=1e-3, atol=1e-7
    )
    assert kept.dtype == torch.float16


@pytest.mark.usefixtures("inference_mode")
@pytest.mark.parametrize("shape, gain", [((96, 1), "row_gain"), ((1, 128), "column_gain")])
def test_a_dora_that_was_added_in_float16_is_found(shape, gain):
    import comfy.lora

    from graphquant.nodes.bridge.tensor.layout import quantized_tensor
    from graphquant.quant_core.formats import Int8

    patches = [lora_patch(strength=0.5, dora=gaussian(*shape, seed=7).abs() + 5)]
    source, _alive = source_of(patches)
    weight = quantized_tensor(Int8().quantize(gaussian(96, 128, seed=9)), torch.float32, source)
    original = weight.to(torch.float16).dequantize()
    patched = weight.requantize_from_float(
        comfy.lora.calculate_weight(patches, original.clone(), "key")
    )
    assert getattr(patched._params, gain) is not None
    assert torch.equal(patched._qdata, weight._qdata)
