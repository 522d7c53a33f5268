"""Every byte of a component is in its plan: quantized, or kept with a reason."""

import pytest
import torch
from torch import nn

from graphquant.quant_core import (
    VALID_METHODS,
    apply_layerwise_casting,
    plan_component,
    plan_layerwise,
    quantize_component,
)
from graphquant.quant_core.detect import module_bytes
from graphquant.quant_core.methods import MEASURED

METHODS = [name for name in VALID_METHODS if name not in MEASURED]


class Bank(nn.Module):
    """Experts as one parameter, as GPT-OSS has them."""

    def __init__(self):
        super().__init__()
        self.gate_up = nn.Parameter(torch.randn(4, 128, 64))
        self.router = nn.Parameter(torch.randn(4, 64))
        self.register_buffer("bias_table", torch.zeros(7))
        self.register_buffer("cache", torch.zeros(5, dtype=torch.float64), persistent=False)
        self.register_buffer("nothing", None)


class Everything(nn.Module):
    """One of each: a bank, an attention, embeddings, convolutions, norms, weight norm, ties."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(32, 64)
        self.head = nn.Linear(64, 32, bias=False)
        self.head.weight = self.embed.weight
        self.blocks = nn.ModuleList(nn.Linear(64, 64) for _ in range(3))
        self.blocks[2].weight = self.blocks[1].weight
        self.attention = nn.MultiheadAttention(64, 4)
        self.bank = Bank()
        self.patch = nn.Conv2d(4, 8, 3)
        self.up = nn.ConvTranspose2d(8, 4, 3)
        self.norm1 = nn.LayerNorm(64)
        self.batch = nn.BatchNorm2d(8)
        self.normed = nn.utils.parametrizations.weight_norm(nn.Linear(64, 64))
        self.half = nn.Linear(64, 64).half()
        self.pos = nn.Parameter(torch.zeros(1, 10, 64))
        self.same_again = self.norm1


@pytest.fixture
def everything():
    torch.manual_seed(0)
    return Everything().requires_grad_(False)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("component", ["transformer", "encoder"])
def test_the_sum_is_the_models_bytes_before_and_after(method, component, everything):
    plan = plan_component(everything, method, component)
    assert plan.bytes_before == module_bytes(everything)
    model, stats = quantize_component(everything, method, component)
    assert plan.bytes_after == module_bytes(model) == stats["model_bytes_after"]
    listed = sum(layer["bytes_after"] for layer in stats["layers"])
    assert listed + sum(each["bytes"] for each in stats["remainder"]) == module_bytes(model)


@pytest.mark.parametrize("scope", ["decoder", "encoder", "both"])
def test_the_sum_is_a_vaes_bytes_too(scope):
    vae = nn.ModuleDict(
        {
            "encoder": nn.Sequential(nn.Conv2d(3, 64, 3), nn.GroupNorm(8, 64)),
            "decoder": nn.Sequential(nn.Conv2d(64, 64, 3), nn.ConvTranspose2d(64, 3, 3)),
        }
    )
    plan = plan_component(vae, "int8", "vae", scope=scope)
    assert plan.bytes_before == module_bytes(vae)
    model, _ = quantize_component(vae, "int8", "vae", scope=scope)
    assert plan.bytes_after == module_bytes(model)


def test_the_sum_holds_when_quantized_twice_and_in_layerwise_casting(everything):
    quantize_component(everything, "int8", include="blocks")
    plan = plan_component(everything, "int4")
    assert plan.bytes_before == module_bytes(everything)
    fresh = Everything().requires_grad_(False)
    casting = plan_layerwise(fresh)
    assert casting.bytes_before == module_bytes(fresh)
    apply_layerwise_casting(fresh)
    assert casting.bytes_after == module_bytes(fresh)


REASONS = {
    "bank.gate_up": ("stack of matrices", "a bank of experts"),
    "bank.router": ("matrix", "calls no layer"),
    "bank.bias_table": ("buffer", "not a parameter"),
    "bank.cache": ("buffer", "no part of the state dict"),
    "attention.in_proj_weight": ("attention", "without calling a layer"),
    "attention.out_proj.weight": ("attention", "without calling a layer"),
    "attention.out_proj.bias": ("bias", "added"),
    "patch.weight": ("convolution", "where convolutions says quantize"),
    "up.weight": ("transposed convolution", "no method"),
    "norm1.weight": ("vector", "a norm"),
    "pos": ("stack of matrices", "no method"),
    "blocks.0.bias": ("bias", "added"),
    "normed.parametrizations.weight.original1": ("matrix", "as a parameter"),
}


@pytest.mark.parametrize("name", REASONS)
def test_what_is_not_a_layer_has_a_kind_and_a_reason(name, everything):
    plan = plan_component(everything, "int8")
    (found,) = (each for each in plan.remainder if name in each.names)
    kind, reason = REASONS[name]
    assert found.kind == kind and reason in found.reason
    assert list(plan.remainder) == sorted(plan.remainder, key=lambda each: -each.bytes)


def test_a_head_tied_to_an_embedding_does_not_make_the_model_grow(everything):
    before = module_bytes(everything)
    _, stats = quantize_component(everything, "int8")
    head = next(layer for layer in stats["layers"] if layer["name"] == "head")
    assert head["action"] == "keep"
    assert head["reason"] == "its weight is also embed's, which stays: both would be stored"
    assert everything.head.weight is everything.embed.weight
    assert module_bytes(everything) < before


def test_a_weight_that_one_of_two_layers_keeps_is_kept_by_both(everything):
    quantize_component(everything, "int8", exclude="blocks.2")
    assert everything.blocks[1].weight is everything.blocks[2].weight
    assert type(everything.blocks[1].weight) is nn.Parameter
    everything = Everything().requires_grad_(False)
    quantize_component(everything, "int8", exclude="blocks.1")
    assert type(everything.blocks[2].weight) is nn.Parameter


def test_layers_that_share_a_weight_share_the_quantized_one(everything):
    _, stats = quantize_component(everything, "int8")
    tied = next(layer for layer in stats["layers"] if layer["name"] == "blocks.2")
    assert (tied["tied_to"], tied["bytes_before"], tied["bytes_after"]) == ("blocks.1", 0, 0)
    assert everything.blocks[1].weight is everything.blocks[2].weight


def test_the_report_tells_them_the_largest_first(everything):
    plan = plan_component(everything, "int8")
    first = plan.remainder[0].to_dict()
    assert first["kind"] == "stack of matrices" and first["names"][0] == "bank.gate_up"
    assert first["bytes"] == 4 * (4 * 128 * 64 + 10 * 64) and first["count"] == 2


def test_one_layer_of_many_that_is_quantized_already_does_not_stand_for_all(transformer):
    quantize_component(transformer, "int8", include="vace_blocks")
    others = ["blocks", "img_in", "final_layer"]
    _, stats = quantize_component(transformer, "int8", exclude=others)
    assert stats["method"] == "already_quantized"
    assert stats["warnings"] == [
        "1 of 13 layers are quantized already, and include or exclude keeps 10 that are not: "
        "nothing was done."
    ]
    _, stats = quantize_component(transformer, "int8")
    assert stats["quantized_layers"] == 10
    _, stats = quantize_component(transformer, "int8")
    assert (stats["method"], stats["warnings"]) == ("already_quantized", [])
