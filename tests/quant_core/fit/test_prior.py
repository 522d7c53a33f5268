"""What is assumed without measurements."""

import pytest
import torch

from graphquant.quant_core import Fit, Plan, plan_component
from graphquant.quant_core.fit import with_fit
from graphquant.quant_core.fit.prior import assumed_per_error


@pytest.fixture
def qwen():
    """Modulation and attention of two of Qwen-Image's blocks."""
    root = torch.nn.Module()
    root.transformer_blocks = torch.nn.ModuleList(torch.nn.Module() for _ in range(2))
    for block in root.transformer_blocks:
        block.img_mod = torch.nn.Sequential(torch.nn.SiLU(), torch.nn.Linear(64, 384))
        block.attn = torch.nn.Linear(64, 384)
    return root.to(torch.bfloat16)


def test_what_is_known_to_be_touchy_is_two_bits_wider(qwen):
    whole = sum(p.nbytes for p in qwen.parameters())
    plan = plan_component(qwen, "fit", preset=None)
    plan = Plan(**{**vars(plan), "preset": "qwen_image"})
    fitted = with_fit(plan, Fit(whole * 6 // 16 + 1500), whole).plan
    bits = {la.name: 8 * la.bytes_after / (64 * 384) for la in fitted.layers}
    modulation = [value for name, value in bits.items() if "img_mod" in name]
    assert min(modulation) - max(set(bits.values()) - set(modulation)) >= 1.5


def test_equal_weights_are_assumed_to_matter_alike(qwen):
    assumed = assumed_per_error(plan_component(qwen, "fit").quantized, None)
    assert len(set(assumed.values())) == 1
    assert sum(value**2 for value in assumed.values()) == pytest.approx(1)
