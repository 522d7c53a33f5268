"""What asks a dynamic-VRAM patcher for an independent one gets a quantized one.

On a CPU ComfyUI has no such patcher; one that says it is stands in, and takes the same ways.
"""

import pytest
import torch

pytestmark = pytest.mark.usefixtures("comfy")

LAYERS = ["double_blocks.0.img_attn.qkv"]


@pytest.fixture
def dynamic_patcher(flux_patcher):
    from comfy.model_patcher import ModelPatcher

    class Dynamic(ModelPatcher):
        def is_dynamic(self):
            return True

    flux_patcher.__class__ = Dynamic
    return flux_patcher


def loaded(patcher):
    """Loaded as a plain patcher is; the stand-in has no GPU to be dynamic on."""
    patcher.patch_model(torch.device("cpu"))
    weight = patcher.model.diffusion_model.get_submodule(LAYERS[0]).weight
    found = weight.dequantize()
    patcher.unpatch_model()
    return found


def test_the_independent_patcher_is_plain_quantized_and_has_the_patches(
    dynamic_patcher, quantize, with_lora
):
    from comfy.model_patcher import ModelPatcher

    quantized = quantize(dynamic_patcher)
    patched, deltas = with_lora(quantized, LAYERS)
    assert patched.is_dynamic()
    expected = loaded(patched)
    delegate = patched.clone(disable_dynamic=True)
    assert type(delegate) is ModelPatcher and not delegate.is_dynamic()
    assert delegate.model is not patched.model
    assert delegate.patches.keys() == patched.patches.keys()
    assert delegate.model_size() == quantized.model_size()
    assert torch.equal(loaded(delegate), expected)
    plain = quantized.clone(disable_dynamic=True)
    assert torch.allclose(expected - loaded(plain), deltas[LAYERS[0]], atol=1e-5)


def test_a_second_independent_patcher_is_made_of_the_first(dynamic_patcher, quantize):
    first = quantize(dynamic_patcher).clone(disable_dynamic=True)
    second = first.clone(force_deepcopy=True)
    assert second.model is not first.model
    assert torch.equal(loaded(second), loaded(first))


def test_what_torch_compile_is_given_is_the_independent_patcher(dynamic_patcher, quantize):
    from comfy_extras.nodes_torch_compile import TorchCompileModel

    quantized = quantize(dynamic_patcher)
    compiled = TorchCompileModel.execute(quantized, "inductor")[0]
    assert not compiled.is_dynamic() and compiled.model is not quantized.model
    assert type(compiled.model.diffusion_model.get_submodule(LAYERS[0])).__name__.startswith(
        "Quantized"
    )


def test_every_gpu_of_a_split_before_quantizing_gets_the_quantized_model(
    flux_patcher, quantize, sample
):
    """MultiGPU CFG Split: its copies of the model lie on the patcher."""
    split = flux_patcher.clone()
    split.set_additional_models("multigpu", [flux_patcher.deepclone_multigpu()])
    quantized = quantize(split)
    (copied,) = quantized.get_additional_models_with_key("multigpu")
    assert copied.model is not quantized.model
    assert copied.model_size() == quantized.model_size()
    copied.remove_additional_models("multigpu")
    assert torch.equal(sample(copied, steps=1), sample(quantize(flux_patcher), steps=1))
