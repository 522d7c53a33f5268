"""Seeded weights, and a small transformer whose layer names are made to mislead a filter."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from graphquant.quant_core import Hardware


def seeded_normal(*shape, std=0.02, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator).mul_(std).to(dtype)


def linear(in_features, out_features):
    layer = nn.Linear(in_features, out_features)
    with torch.no_grad():
        layer.weight.copy_(seeded_normal(out_features, in_features, std=in_features**-0.5))
        layer.bias.copy_(seeded_normal(out_features, std=0.5, seed=1))
    return layer


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm1 = nn.ModuleDict({"linear": linear(256, 256)})
        self.attn = linear(256, 256)
        self.normal_proj = linear(256, 256)
        self.mlp = nn.Sequential(linear(256, 512), nn.GELU(), linear(512, 256))

    def forward(self, x):
        y = F.layer_norm(x, (256,))
        x = x + self.normal_proj(self.attn(y)) * self.norm1["linear"](y).tanh()
        return x + self.mlp(F.layer_norm(x, (256,)))


class Transformer(nn.Module):
    """13 Linear layers, two of them of norms; the last one's N is not in sixteens."""

    def __init__(self):
        super().__init__()
        self.img_in = linear(64, 256)
        self.blocks = nn.ModuleList(Block() for _ in range(2))
        self.vace_blocks = nn.ModuleList([linear(256, 256)])
        self.final_layer = linear(256, 24)

    def forward(self, x):
        x = self.img_in(x)
        for block in (*self.blocks, *self.vace_blocks):
            x = block(x)
        return self.final_layer(F.layer_norm(x, (256,)))


@pytest.fixture
def normal():
    """``normal(*shape, std=0.02, seed=0, dtype=torch.float32)``: a Gaussian weight."""
    return seeded_normal


@pytest.fixture
def transformer():
    return Transformer().requires_grad_(False)


@pytest.fixture
def tokens():
    """Input of ``transformer``: [2, 20, 64]."""
    return seeded_normal(2, 20, 64, std=1.0, seed=2)


@pytest.fixture
def fp8_hardware():
    """A GPU that multiplies FP8, which decides the plan; nothing runs on it."""
    return Hardware("cuda", "NVIDIA Test 4090", fp8_matmul=True)


@pytest.fixture
def cpu():
    return Hardware("cpu", "CPU", fp8_matmul=False)


@pytest.fixture(params=[False, True], ids=["normal mode", "inference mode"])
def mode(request):
    """The test's body runs in both."""
    with torch.inference_mode(request.param):
        yield request.param
