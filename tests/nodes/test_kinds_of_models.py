"""Mixtures of experts, audio, meshes and video: quantize, sample, LoRA, save, load."""

from functools import cache

import pytest
import torch

from lab import tiny_kinds
from lab.sampling import relative_l2
from lab.tiny_kinds import TINY_KINDS, sample, sizes_of

pytestmark = [pytest.mark.usefixtures("comfy"), pytest.mark.usefixtures("inference_mode")]

# Of each kind, in INT8 with its convolutions: the layers that are quantized, the most that the
# model may weigh of what it did, and the bound of the latent's error after a step.
EXPECTED = {
    "hidream_i1": ({"Linear": 47}, 0.34, 0.01),
    "hunyuan3d_2": ({"Linear": 20}, 0.50, 0.003),
    "hunyuan3d_21": ({"Linear": 57}, 0.32, 0.02),
    "ace_step": ({"Linear": 30, "Conv1d": 6}, 0.63, 0.006),
    "ace_step_15": ({"Linear": 36}, 0.61, 0.008),
    "stable_audio": ({"Linear": 14}, 0.55, 0.015),
    "ltxv_2b": ({"Linear": 20}, 0.65, 0.005),
}
KINDS = {kind.name: kind for kind in TINY_KINDS}


@pytest.fixture(scope="module")
def kinds(comfy, tmp_path_factory):
    """The MODEL of a kind, and what it samples, by the kind's name; each is made once."""
    folder = tmp_path_factory.mktemp("kinds")

    @cache
    def of(name):
        kind = KINDS[name]
        with torch.inference_mode():
            model = tiny_kinds.load(tiny_kinds.tiny_kind_file(kind, folder), kind)
            return model, sample(model, kind)

    return of


def quantize(model, method="int8", **options):
    from graphquant.nodes.quantize_model import GQQuantizeModel

    output = GQQuantizeModel.execute(model=model, method=method, **options)
    return output[0], output.ui["graphquant"][0]


def layers_of(report):
    taken = [layer for layer in report["layers"] if layer["action"] == "quantize"]
    return {
        kind: sum(layer["kind"] == kind for layer in taken)
        for kind in {layer["kind"] for layer in taken}
    }


def with_lora(model, layers, strength=1.0, rank=4):
    """A clone of ``model`` with a seeded LoRA on the ``layers`` of its diffusion model."""
    from comfy.utils import get_attr
    from comfy.weight_adapter import LoRAAdapter

    generator = torch.Generator().manual_seed(1)
    adapters = {}
    for name in layers:
        key = f"diffusion_model.{name}.weight"
        shape = get_attr(model.model, key).shape
        up = torch.randn(shape[0], rank, generator=generator) * 0.05
        down = torch.randn(rank, shape[1:].numel(), generator=generator) * 0.05
        adapters[key] = LoRAAdapter(set(), (up, down, float(rank), None, None, None))
    clone = model.clone()
    assert len(clone.add_patches(adapters, strength)) == len(adapters)
    return clone


def taken(report):
    return [layer["name"] for layer in report["layers"] if layer["action"] == "quantize"]


@pytest.mark.parametrize("name", KINDS)
def test_a_kind_is_quantized_sampled_patched_saved_and_loaded(name, kinds, tmp_path):
    from graphquant.nodes.bridge.loading.load_model import load_quantized_model
    from graphquant.nodes.bridge.saving.save_model import save_quantized_model

    kind, (model, plain) = KINDS[name], kinds(name)
    layers, share, bound = EXPECTED[name]
    quantized, report = quantize(model, convolutions="quantize")
    assert layers_of(report) == layers
    told = sum(layer["bytes_after"] for layer in report["layers"])
    told += sum(each["bytes"] for each in report["remainder"])
    assert told == quantized.model_size() <= share * model.model_size()
    latent = sample(quantized, kind)
    assert 1e-4 < relative_l2(latent, plain) < bound

    effect = sample(with_lora(model, taken(report)), kind) - plain
    ours = sample(with_lora(quantized, taken(report)), kind) - latent
    assert relative_l2(ours, effect) < 0.15
    assert torch.equal(sample(quantized, kind), latent)
    assert torch.equal(sample(model, kind), plain)

    path = tmp_path / "saved.safetensors"
    with sizes_of(kind):
        save_quantized_model(quantized, path)
        loaded, _ = load_quantized_model(path)
    assert loaded.model_size() == quantized.model_size()
    assert torch.equal(sample(loaded, kind), latent)
    assert quantize(loaded, convolutions="quantize")[1]["method"] == "already_quantized"


def test_a_lora_on_one_expert_moves_that_expert_alone(kinds):
    kind, (model, _) = KINDS["hidream_i1"], kinds("hidream_i1")
    quantized, _ = quantize(model)
    block = "double_stream_blocks.0.block.ff_i"
    expert = f"{block}.experts.2.w1"
    patched = with_lora(quantized, [expert], strength=0.5)
    patched.patch_model()
    try:
        experts = patched.model.diffusion_model.get_submodule(f"{block}.experts")
        ups = [each.w1.weight._params.lora_up for each in experts]
    finally:
        patched.unpatch_model()
    assert [n for n, up in enumerate(ups) if up is not None] == [2]
    assert torch.equal(sample(with_lora(quantized, [expert], 0.0), kind), sample(quantized, kind))


def test_experts_that_no_token_is_sent_to_are_multiplied_by_no_rows(kinds):
    """One token reaches two experts of four; the others get an input of zero rows."""
    _, (model, _) = KINDS["hidream_i1"], kinds("hidream_i1")
    for method in ("int8", "int8-dynamic", "int4", "int8-convrot", "w4a8", "llm.int8"):
        quantized, _ = quantize(model, method)
        experts = quantized.model.diffusion_model.double_stream_blocks[0].block.ff_i
        plain = model.model.diffusion_model.double_stream_blocks[0].block.ff_i
        x = torch.randn(1, 1, 64, generator=torch.Generator().manual_seed(3))
        y, expected = experts(x), plain(x)
        assert y.shape == expected.shape and relative_l2(y, expected) < 0.3, method
        assert experts.experts[0].w1(x[:, :0]).shape[:2] == (1, 0)


def test_a_merge_before_the_node_is_rounded_into_the_experts(kinds):
    from comfy_extras.nodes_model_merging import ModelMergeSimple

    kind, (model, _) = KINDS["hunyuan3d_21"], kinds("hunyuan3d_21")
    other = with_lora(model, ["blocks.2.moe.experts.0.net.2", "blocks.0.attn1.to_q"], 4.0)
    (merged,) = ModelMergeSimple().merge(model, other, 0.5)
    quantized, report = quantize(merged)
    assert report["quantized_layers"] == 57
    expected = sample(merged, kind)
    assert relative_l2(sample(quantized, kind), expected) < 0.02


def test_what_is_not_quantized_of_a_kind_is_told_with_its_bytes(kinds):
    _, report = quantize(kinds("ace_step_15")[0], "int4")
    told = {each["kind"]: each["bytes"] for each in report["remainder"]}
    assert {"convolution", "transposed convolution", "vector", "bias"} <= set(told)
    kept = [layer for layer in report["layers"] if layer["action"] == "keep"]
    assert len(kept) == 37 and all(layer["reason"] for layer in kept)
