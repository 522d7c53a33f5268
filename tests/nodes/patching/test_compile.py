"""Stock's TorchCompileModel after Quantize Model: the same output, no more graph breaks, and no
recompilation when a seed or a LoRA's strength changes."""

import pytest
import torch

pytestmark = pytest.mark.usefixtures("comfy")

LAYER = "double_blocks.0.img_attn.qkv"


def with_lora(patcher, strength):
    import comfy.lora

    generator = torch.Generator().manual_seed(1)
    n, k = patcher.model.diffusion_model.get_submodule(LAYER).weight.shape
    name = f"diffusion_model.{LAYER}"
    lora = {
        f"{name}.lora_up.weight": torch.randn(n, 4, generator=generator) * 0.1,
        f"{name}.lora_down.weight": torch.randn(4, k, generator=generator) * 0.1,
    }
    patched = patcher.clone()
    keys = comfy.lora.model_lora_keys_unet(patcher.model, {})
    patched.add_patches(comfy.lora.load_lora(lora, keys), strength)
    return patched


def graphs_and_breaks():
    from torch._dynamo.utils import counters

    return counters["stats"]["unique_graphs"], sum(counters["graph_break"].values())


def relative(a, b):
    return ((a - b).norm() / b.norm()).item()


def test_compiling_changes_nothing_but_speed(flux_patcher, sample):
    from comfy_extras.nodes_torch_compile import TorchCompileModel
    from torch._dynamo import reset
    from torch._dynamo.utils import counters

    from graphquant.nodes.quantize_model import GQQuantizeModel

    def compiled(model):
        reset()
        counters.clear()
        return TorchCompileModel.execute(model, "inductor")[0]

    sample(compiled(flux_patcher), steps=1)
    plain = graphs_and_breaks()

    quantized = GQQuantizeModel.execute(model=flux_patcher, method="int8")[0]
    fast = compiled(quantized)
    assert relative(sample(fast), sample(quantized)) < 1e-4
    first = graphs_and_breaks()
    assert first == plain

    sample(fast, seed=5)
    assert graphs_and_breaks() == first

    strong = sample(with_lora(fast, 1.0))
    after_lora = graphs_and_breaks()
    assert after_lora[0] - first[0] <= 1
    assert relative(strong, sample(with_lora(quantized, 1.0))) < 1e-4

    weak = sample(with_lora(fast, 0.5))
    assert graphs_and_breaks() == after_lora
    assert relative(weak, strong) > 1e-3
