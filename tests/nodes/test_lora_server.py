"""Stock LoRA nodes before and after Quantize Model, over the HTTP API, on the device at hand."""

import pytest
import torch
from safetensors.torch import save_file

from lab import workflows
from lab.tiny_models import FLUX

LAYERS = ["double_blocks.0.img_attn.qkv", "double_blocks.1.img_mlp.2", "single_blocks.2.linear1"]


@pytest.fixture(scope="module")
def lora_names(server, models_folder):
    """Two LoRA files on three layers each, of the tiny Flux of hidden size 256."""
    import comfy.sd

    folder = models_folder.parent / "loras"
    folder.mkdir(exist_ok=True)
    with torch.inference_mode():
        model = comfy.sd.load_diffusion_model(str(models_folder / FLUX.file)).model.diffusion_model
    for seed, name in enumerate(["first.safetensors", "second.safetensors"]):
        generator = torch.Generator().manual_seed(seed)
        tensors = {}
        for layer in LAYERS:
            n, k = model.get_submodule(layer).weight.shape
            key = f"diffusion_model.{layer}"
            tensors[f"{key}.lora_up.weight"] = torch.randn(n, 4, generator=generator) * 0.05
            tensors[f"{key}.lora_down.weight"] = torch.randn(4, k, generator=generator) * 0.1
        save_file(tensors, folder / name)
    return ["first.safetensors", "second.safetensors"]


def run(server, method=None, before=(), after=()):
    """The latent of: load, LoRAs (name, strength), [Quantize Model], LoRAs, sample."""
    return server.latents(server.run(prompt_of(method, before, after)))[workflows.PLAIN]


def prompt_of(method, before=(), after=()):
    prompt = workflows.plain(FLUX)
    source = "load"
    for index, (name, strength) in enumerate(before):
        source = add_lora(prompt, f"before{index}", source, name, strength)
    if method:
        prompt["quantize"] = {
            "class_type": "GQQuantizeModel",
            "inputs": {"model": [source, 0], "method": method},
        }
        source = "quantize"
    for index, (name, strength) in enumerate(after):
        source = add_lora(prompt, f"after{index}", source, name, strength)
    prompt["sample_plain"]["inputs"]["model"] = [source, 0]
    return prompt


def add_lora(prompt, node, source, name, strength):
    prompt[node] = {
        "class_type": "LoraLoaderModelOnly",
        "inputs": {"model": [source, 0], "lora_name": name, "strength_model": strength},
    }
    return node


def cosine(a, b):
    return torch.cosine_similarity(a.flatten(), b.flatten(), 0).item()


@pytest.mark.parametrize("method", ["fp8-dynamic", "fp8-weight-only", "int8", "int4"])
def test_loras_after_the_node_keep_their_effect(server, lora_names, method):
    loras = [(name, 1.0) for name in lora_names]
    exact = run(server, after=loras) - run(server)
    effect = run(server, method, after=loras) - run(server, method)
    assert cosine(effect, exact) > (0.95 if method == "int4" else 0.98)
    assert 0.9 < (effect.norm() / exact.norm()).item() < 1.1


@pytest.mark.parametrize("method", ["fp8-weight-only", "int8"])
def test_loras_before_the_node_keep_their_effect(server, lora_names, method):
    loras = [(name, 1.0) for name in lora_names]
    exact = run(server, before=loras) - run(server)
    effect = run(server, method, before=loras) - run(server, method)
    assert cosine(effect, exact) > 0.98


def test_strength_there_and_back_ends_bit_equal_to_never_loaded(server, lora_names):
    (name, _) = lora_names
    never = run(server, "int8")
    latents = [run(server, "int8", after=[(name, s)]) for s in (1.0, -0.5, 0.3, 1.0)]
    assert torch.equal(latents[0], latents[3])
    assert not torch.equal(latents[0], latents[1])
    assert torch.equal(run(server, "int8"), never)


def test_ten_changes_of_strength_neither_load_nor_quantize_again(server, lora_names):
    (name, _) = lora_names
    run(server, "int8")
    for change in range(10):
        entry = server.run(prompt_of("int8", after=[(name, 0.1 + 0.07 * change)]))
        messages = dict(entry["status"]["messages"])
        assert {"load", "quantize"} <= set(messages["execution_cached"]["nodes"])


def test_two_loras_commute_within_rounding(server, lora_names):
    first, second = [(name, 1.0) for name in lora_names]
    one = run(server, "int8", after=[first, second])
    other = run(server, "int8", after=[second, first])
    assert ((one - other).norm() / one.norm()).item() < 1e-5
