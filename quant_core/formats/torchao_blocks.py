"""Scales in the shape that torchao's own tensors have them in.

Tested by tests/quant_core/carriers/test_torchao_tensors.py.
"""

from __future__ import annotations

import torch

from .base import QuantizedWeight


def torchao_scale(weight: QuantizedWeight, granularity: str) -> tuple[torch.Tensor, list[int]]:
    """The scale as torchao has it, with as many dimensions as the weight, and the size of the block
    of weights that shares one."""
    scale = weight.scale.reshape(weight.scale.shape or (1,) * len(weight.shape))
    return scale, [1, *weight.shape[1:]] if granularity == "per-row" else list(weight.shape)
