"""Weights of SVDQuant in a graph: comfy-kitchen's product of them, and a LoRA in their branch."""

import dataclasses

import pytest
import torch

from graphquant.quant_core.formats import SvdQuant
from lab.sampling import relative_l2

pytestmark = pytest.mark.usefixtures("comfy")
KINDS = [("int4", 1), ("int4", 64), ("nvfp4", 1)]


@pytest.fixture
def normal():
    """``normal(*shape, std=0.02, seed=0, dtype=torch.float32)``."""

    def draw(*shape, std=0.02, seed=0, dtype=torch.float32):
        return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).mul(std).to(dtype)

    return draw


def stored(residual, rotation, normal):
    weight = SvdQuant(residual, 8, residual, rotation).quantize(normal(128, 256))
    smooth = torch.linspace(0.5, 2, 256).bfloat16()
    return dataclasses.replace(weight, smooth_factor=smooth)


@pytest.mark.parametrize(("residual", "rotation"), KINDS)
def test_comfy_kitchen_is_given_what_the_format_computes(residual, rotation, normal):
    """Its plain PyTorch on this CPU; its kernels have the same door."""
    from graphquant.nodes.bridge.tensor.native import native_linear

    weight = stored(residual, rotation, normal)
    x = normal(2, 20, 256, std=1.0, seed=1, dtype=torch.bfloat16)
    bias = normal(128, std=1.0, seed=2, dtype=torch.bfloat16)
    expected = weight.format.emulated(x.float(), weight, bias.float())
    found = native_linear(x, weight, bias)
    assert found.shape == (2, 20, 128) and found.dtype == torch.bfloat16
    # bfloat16 lets codes of activations next to a tie fall the other way.
    assert relative_l2(found.float(), expected) < 0.05
    without = dataclasses.replace(weight, proj_up=torch.zeros_like(weight.proj_up))
    assert relative_l2(native_linear(x, without, bias).float(), expected) > 0.1


@pytest.mark.parametrize(("residual", "rotation"), KINDS)
def test_a_lora_is_appended_to_the_branch_of_the_product(residual, rotation, normal, monkeypatch):
    from graphquant.nodes.bridge.tensor import operators
    from graphquant.nodes.bridge.tensor.layout import quantized_tensor

    weight, x = stored(residual, rotation, normal), normal(20, 256, std=1.0, seed=1)
    carried, seen = quantized_tensor(weight, torch.float32), []
    plain = operators.linear(x, carried, None)
    up, down = normal(128, 4, seed=5), normal(4, 256, std=1.0, seed=6)
    product = operators._product

    def note(given, *arguments):
        seen.append(given.proj_up.shape[1])
        return product(given, *arguments)

    monkeypatch.setattr(operators, "_product", note)
    with_lora = dataclasses.replace(carried._params, lora_up=up, lora_down=down)
    patched = type(carried)(carried._qdata, "GraphQuantLayout", with_lora)
    gained = operators.linear(x, patched, None) - plain
    assert seen == [12]
    assert relative_l2(gained, x @ (up @ down).t()) < 1e-4
    assert torch.equal(operators.linear(x, carried, None), plain)
