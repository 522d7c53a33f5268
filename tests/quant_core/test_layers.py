"""What counts as a layer that can be quantized."""

import pytest
import torch
from torch import nn

from graphquant.quant_core import is_fp8_compatible_layer, quantize_component
from graphquant.quant_core.layers import layer_kind, supported_layers
from lab.sampling import relative_l2


class LinearLike(nn.Module):
    """As ComfyUI's mixed-precision Linear: no nn.Linear."""

    def __init__(self, dimensions=2):
        super().__init__()
        self.in_features, self.out_features = 16, 32
        self.weight = nn.Parameter(torch.zeros(32, 16, *[1] * (dimensions - 2)))


class OwnLinear(nn.Linear):
    pass


@pytest.mark.parametrize(
    ("module", "kind"),
    [
        (nn.Linear(4, 4), "Linear"),
        (OwnLinear(4, 4), "Linear"),
        (LinearLike(), "Linear"),
        (LinearLike(dimensions=3), None),
        (nn.Conv1d(4, 4, 1), "Conv1d"),
        (nn.Conv2d(4, 4, 1), "Conv2d"),
        (nn.Conv3d(4, 4, 1), "Conv3d"),
        (nn.ConvTranspose2d(4, 4, 1), None),
        (nn.Embedding(4, 4), None),
        (nn.LayerNorm(4), None),
        (nn.LayerNorm(4, elementwise_affine=False), None),
        (nn.GELU(), None),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else str(value),
)
def test_a_layer_is_a_linear_by_what_it_has_and_a_convolution_by_its_class(module, kind):
    assert layer_kind(module) == kind


def test_convolutions_are_considered_in_a_vae_only():
    model = nn.ModuleDict({"conv": nn.Conv2d(4, 4, 1), "proj": nn.Linear(4, 4)})
    expected = [("conv", "Conv2d", model["conv"]), ("proj", "Linear", model["proj"])]
    assert list(supported_layers(model, "vae")) == expected
    assert list(supported_layers(model, "transformer")) == expected[1:]
    assert list(supported_layers(model, "encoder")) == expected[1:]


def test_a_module_used_twice_is_one_layer():
    shared = nn.Linear(4, 4)
    model = nn.ModuleDict({"first": shared, "second": shared})
    assert [name for name, _, _ in supported_layers(model, "transformer")] == ["first"]


def test_multihead_attention_whose_out_proj_is_never_called_still_runs(normal):
    """The attention multiplies by ``out_proj.weight`` itself, which no torchao tensor survives."""
    model = nn.ModuleDict(
        {"attention": nn.MultiheadAttention(128, 4), "proj": nn.Linear(128, 128)}
    ).eval()
    x = normal(5, 1, 128, std=1.0)
    before, _ = model["attention"](x, x, x)
    _, stats = quantize_component(model, "int8")
    assert [layer["name"] for layer in stats["layers"]] == ["proj"]
    after, _ = model["attention"](x, x, x)
    assert relative_l2(after, before) == 0


@pytest.mark.parametrize(
    ("module", "fits"),
    [
        (nn.Linear(64, 32), True),
        (nn.Linear(64, 24), False),
        (nn.Linear(72, 32), False),
        (nn.Conv2d(16, 16, 1), False),
        (nn.LayerNorm(16), False),
    ],
    ids=repr,
)
def test_an_fp8_matmul_takes_a_linear_in_sixteens(module, fits):
    assert is_fp8_compatible_layer(module) is fits
