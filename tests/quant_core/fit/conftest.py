"""A model of twelve layers, and sensitivities that span two orders of magnitude."""

import pytest
import torch

from graphquant.quant_core.calibration import fingerprint_of
from graphquant.quant_core.fit import Sensitivity


class Block(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv, self.out = torch.nn.Linear(128, 384), torch.nn.Linear(384, 128)


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = torch.nn.ModuleList(Block() for _ in range(6))
        self.norm = torch.nn.LayerNorm(128)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Model().to(torch.bfloat16).requires_grad_(False)


@pytest.fixture
def sensitivity(model):
    """Block 0 matters most, block 5 least."""
    effects = {f"blocks.{n}.{part}": 0.1 / 2.5**n for n in range(6) for part in ("qkv", "out")}
    return Sensitivity("toy", fingerprint_of(model), "int4-symmetric", effects)
