"""Layers that a preset raises to INT8 at few bits, and leaves to the method at more."""

import pytest
import torch
from torch import nn

from graphquant.quant_core import plan_component
from graphquant.quant_core.presets import PRESETS, Preset, Raised

HOUSE = Preset("house", "a test", keep=(), raised=(Raised(("mod",), "a test"),))


@pytest.fixture
def model():
    with torch.device("meta"):
        block = nn.ModuleDict({"mod": nn.Linear(256, 512), "mlp": nn.Linear(256, 512)})
        return nn.Sequential(block, nn.ModuleDict({"mlp": nn.Linear(512, 256)})).bfloat16()


def formats(model, method, preset=HOUSE):
    plan = plan_component(model, method, preset=preset)
    return {layer.name: str(layer.format) for layer in plan.layers}, plan


@pytest.mark.parametrize("method", ["int4", "nf4-fine", "nvfp4", "nf4", "int3", "int2"])
def test_below_the_width_the_layer_is_int8_with_its_reason_and_bytes(method, model):
    found, plan = formats(model, method)
    assert found["0.mod"] == "int8 per-row"
    assert not found["0.mlp"].startswith("int8")
    raised = plan.layers[0]
    assert raised.reason == "INT8: preset house raises mod to it at up to 5 bits"
    assert raised.bytes_after == raised.format.nbytes(raised.shape) == 256 * 512 + 4 * 512


def test_it_goes_on_multiplying_int8_where_the_method_does(model):
    assert formats(model, "w4a8")[0]["0.mod"] == "int8 per-row, int8 activations"


@pytest.mark.parametrize("method", ["int5", "int6", "w6a8", "fp8-weight-only", "int8", "mxfp8"])
def test_above_it_the_method_decides(method, model):
    assert formats(model, method)[0] == formats(model, method, preset=None)[0]


def test_a_layer_that_shares_the_weight_goes_with_it(model):
    model[0]["mlp"].weight = model[0]["mod"].weight
    found, plan = formats(model, "int4")
    assert found["0.mod"] == found["0.mlp"] == "int8 per-row"
    assert plan.layers[1].bytes_after == 0


def test_every_rule_says_where_it_comes_from_and_raises_something_at_4_bits_alone():
    rules = [(name, rule) for name, preset in PRESETS.items() for rule in preset.raised]
    assert {name for name, _ in rules} == {"flux2", "qwen_image", "z_image", "wan", "ltx2"}
    assert all(rule.source and rule.layers and 4.51 < rule.bits < 5.25 for _, rule in rules)


def test_what_is_stored_as_small_as_it_would_be_raised_to_stays_as_it_is(normal):
    model = nn.Sequential(nn.ModuleDict({"mod": nn.Linear(256, 128), "mlp": nn.Linear(256, 128)}))
    for layer in model[0].values():
        codes = normal(128, 256).to(torch.float8_e4m3fn)
        layer.weight = nn.Parameter(codes, requires_grad=False)
    plan = plan_component(model, "int4", preset=HOUSE, requantize=True)
    mod, mlp = plan.layers
    assert (mod.action, mod.source) == ("already quantized", None)
    assert "preset house raises mod above 5 bits" in mod.reason
    assert (mlp.action, mlp.source) == ("quantize", "float8_e4m3fn")
