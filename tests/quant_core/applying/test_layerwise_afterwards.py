"""A module that layerwise casting stores in FP8 goes on being one when its dtype is changed."""

import copy

import pytest
import torch
from torch import nn

from graphquant.quant_core import apply_layerwise_casting, remove_layerwise_casting


@pytest.mark.parametrize("patterns", [(), None], ids=["by layer", "as one"])
@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.to(torch.bfloat16),
        nn.Module.half,
        nn.Module.double,
        lambda m: m.to("cpu", torch.float16),
    ],
    ids=["to", "half", "double", "device and dtype"],
)
def test_another_dtype_does_not_undo_the_storage(patterns, change):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(64, 32), nn.GELU(), nn.Linear(32, 16)).requires_grad_(False)
    x = torch.randn(5, 64)
    apply_layerwise_casting(module, skip_patterns=patterns)
    y, codes = module(x), module[0].weight.clone()
    for changed in (change(copy.deepcopy(module)), change(module)):
        assert changed[0].weight.dtype == torch.float8_e4m3fn
        assert torch.equal(changed[0].weight.float(), codes.float())
        assert changed[0].weight_scale.dtype == torch.float32
        assert torch.allclose(changed(x).float(), y, atol=0.02)
    remove_layerwise_casting(module)
    assert module.half()[0].weight.dtype == torch.float16
