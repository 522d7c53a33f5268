"""What nodes bound to the original's modules works on the quantized copy, or is refused."""

import gc
import weakref
from functools import partial

import pytest
import torch

pytestmark = pytest.mark.usefixtures("comfy")

LAYER = "double_blocks.0.img_attn.qkv"


@pytest.fixture
def sample(sample):
    return partial(sample, steps=1)


def relative(a, b):
    return ((a - b).norm() / b.norm()).item()


def lora_of(patcher, scale=0.1):
    generator = torch.Generator().manual_seed(1)
    n, k = patcher.model.diffusion_model.get_submodule(LAYER).weight.shape
    name = f"diffusion_model.{LAYER}"
    return {
        f"{name}.lora_up.weight": torch.randn(n, 4, generator=generator) * scale,
        f"{name}.lora_down.weight": torch.randn(4, k, generator=generator) * 0.1,
    }


def bypassed(patcher, strength=1.0):
    """Load LoRA (Bypass)."""
    import comfy.sd

    return comfy.sd.load_bypass_lora_for_models(patcher, None, lora_of(patcher), strength, 0)[0]


def fused(patcher):
    import comfy.sd

    return comfy.sd.load_lora_for_models(patcher, None, lora_of(patcher), 1.0, 0)[0]


@pytest.mark.parametrize("method", ["int8", "int4"])
@pytest.mark.parametrize("order", ["before", "after"])
def test_a_bypassed_lora_acts_before_and_after_quantizing(
    flux_patcher, quantize, sample, method, order
):
    plain = quantize(flux_patcher, method)
    before, wanted = sample(plain), sample(fused(plain))
    ours = bypassed(plain) if order == "after" else quantize(bypassed(flux_patcher), method)
    found = sample(ours)
    assert relative(found, wanted) < 1e-4 < relative(wanted, before)
    assert torch.equal(sample(plain), before)


def test_a_copy_made_while_a_bypassed_lora_is_loaded_is_free_of_it(flux_patcher, quantize, sample):
    import comfy.model_management

    quantized = quantize(flux_patcher)
    expected = sample(quantized)
    ours = bypassed(quantized)
    wanted = sample(ours)
    comfy.model_management.load_models_gpu([ours])
    with ours.use_ejected(), torch.inference_mode():
        pass
    assert ours.is_injected
    assert torch.equal(sample(quantized.clone(force_deepcopy=True)), expected)
    assert torch.equal(sample(ours.clone(force_deepcopy=True)), wanted)


def test_a_method_replaced_before_quantizing_runs_on_the_quantized_layers(
    flux_patcher, quantize, sample
):
    """As nodes do that patch an attention's forward."""
    name = "diffusion_model.double_blocks.0.img_mlp.0.forward"
    layer = flux_patcher.model.get_submodule(name.removesuffix(".forward"))
    called = []

    def forward(self, x):
        called.append(self)
        return type(self).forward(self, x)

    patched = flux_patcher.clone()
    patched.add_object_patch(name, forward.__get__(layer))
    quantized = quantize(patched)
    assert torch.equal(sample(quantized), sample(quantize(flux_patcher)))
    assert set(called) == {quantized.model.get_submodule(name.removesuffix(".forward"))}


def test_compiling_before_quantizing_compiles_the_quantized_model(flux_patcher, quantize, sample):
    from comfy_api.torch_helpers import set_torch_compile_wrapper

    blocks = ["diffusion_model.double_blocks.0", "diffusion_model.single_blocks.0"]
    compiled = flux_patcher.clone()
    set_torch_compile_wrapper(compiled, backend="eager", keys=blocks)
    expected = sample(quantize(flux_patcher))
    assert relative(sample(quantize(compiled)), expected) < 1e-5
    assert relative(sample(flux_patcher), expected) > 1e-4


def test_a_block_compiled_as_an_object_patch_before_quantizing_is_refused(flux_patcher, quantize):
    name = "diffusion_model.double_blocks.0"
    patched = flux_patcher.clone()
    patched.add_object_patch(name, torch.compile(flux_patcher.get_model_object(name)))
    with pytest.raises(ValueError, match="after Quantize Model"):
        quantize(patched)


def test_a_bypassed_lora_before_quantizing_keeps_no_original_weight(
    tiny_flux_file, inference_mode, quantize
):
    import comfy.sd

    patcher = bypassed(comfy.sd.load_diffusion_model(str(tiny_flux_file)))
    weight = weakref.ref(patcher.model.diffusion_model.get_submodule(LAYER).weight)
    quantized = quantize(patcher)
    del patcher
    gc.collect()
    assert quantized and weight() is None
