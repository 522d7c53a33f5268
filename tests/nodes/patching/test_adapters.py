"""A LoRA's factors are found again, exactly, among the patchers that may have added it."""

import pytest
import torch

pytestmark = pytest.mark.usefixtures("comfy")

CPU = torch.device("cpu")


def gaussian(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def lora_patch(n=96, k=128, rank=4, seed=0, strength=1.0, alpha=None, offset=None, dora=None):
    from comfy.weight_adapter.lora import LoRAAdapter

    up, down = gaussian(n, rank, seed=seed), gaussian(rank, k, seed=seed + 100)
    adapter = LoRAAdapter(set(), (up, down, alpha, None, dora, None))
    return (strength, adapter, 1.0, offset, None)


def added_by_comfyui(patches, shape=(96, 128)):
    """What stock patching adds to a weight of zeros."""
    import comfy.lora

    return comfy.lora.calculate_weight(patches, torch.zeros(shape), "key")


def factors(patches, shape=(96, 128)):
    from graphquant.nodes.patching.adapters import adapter_factors

    return adapter_factors(patches, shape, CPU)


@pytest.mark.parametrize(
    "patches",
    [
        [{}],
        [{"strength": -0.3}],
        [{"alpha": 2.0}],
        [{"seed": 1}, {"seed": 2, "rank": 8, "strength": 0.5}],
        [{"n": 32, "offset": (0, 64, 32)}],
        [{"k": 32, "offset": (1, 16, 32)}],
    ],
    ids=str,
)
def test_the_factors_multiply_to_what_comfyui_adds(patches):
    patches = [lora_patch(**options) for options in patches]
    up, down = factors(patches)
    assert torch.allclose(up @ down, added_by_comfyui(patches), atol=1e-5)
    assert up.shape[1] == sum(patch[1].weights[1].shape[0] for patch in patches)


def test_what_is_no_plain_lora_has_no_factors():
    assert factors([lora_patch(dora=torch.ones(96, 1))]) is None
    assert factors([lora_patch(), (1.0, ("diff", (torch.ones(96, 128),)), 1.0, None, None)]) is None
    assert factors([lora_patch()], shape=(96, 127)) is None
    assert factors([]) is None


def source_of(*patch_lists):
    from comfy.model_patcher import ModelPatcher

    from graphquant.nodes.patching.adapters import LivePatchers, PatchSource

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
    for patches in lists:
        delta = added_by_comfyui(patches)
        up, down = source.factors(delta, tolerance=1e-3 * delta.norm().item())
        assert torch.allclose(up @ down, delta, atol=1e-6)


def test_a_dead_patcher_is_forgotten():
    patches = [lora_patch()]
    source, alive = source_of(patches)
    alive.clear()
    assert source.factors(added_by_comfyui(patches), tolerance=1.0) is None


def test_nothing_near_enough_is_nothing():
    source, _alive = source_of([lora_patch(seed=1)])
    other = added_by_comfyui([lora_patch(seed=2)])
    assert source.factors(other, tolerance=1e-3 * other.norm().item()) is None


@pytest.mark.usefixtures("inference_mode")
def test_a_small_lora_survives_being_added_in_float16():
    """What most GPUs do: the sum's rounding is as large as the LoRA itself."""
    from graphquant.nodes.patching.layout import quantized_tensor
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
