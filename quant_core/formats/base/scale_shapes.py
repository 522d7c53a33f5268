"""The shapes of scales that are one a row or one a weight.

Tested by tests/quant_core/carriers/test_torchao_tensors.py.
"""

from __future__ import annotations

import torch

from .quantized_weight import QuantizedWeight


def scale_shape(shape: tuple[int, ...], granularity: str) -> tuple[int, ...]:
    """The shape of the scales of a weight: [N, 1, ...] per row, [] per tensor."""
    return (shape[0],) + (1,) * (len(shape) - 1) if granularity == "per-row" else ()


def torchao_scale(weight: QuantizedWeight, granularity: str) -> tuple[torch.Tensor, list[int]]:
    """The scale as torchao has it, with as many dimensions as the weight, and the size of the block
    of weights that shares one."""
    scale = weight.scale.reshape(weight.scale.shape or (1,) * len(weight.shape))
    return scale, [1, *weight.shape[1:]] if granularity == "per-row" else list(weight.shape)
