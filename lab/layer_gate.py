"""The gate of single layers: a quantized layer computes what its format says, nothing else."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F

from .sampling import relative_l2

# What rounding a layer's inputs may cost its output, by what they are rounded to.
OF_ACTIVATIONS = {None: 1e-3, "int8": 0.03, "float8_e4m3fn": 0.05, "mxfp8": 0.05, "nvfp4": 0.15}
OF_WEIGHTS = 1e-3


def faults(
    quantized: torch.nn.Module, original: torch.nn.Module, inputs: Mapping[str, torch.Tensor]
) -> list[str]:
    """What is wrong with the layers of ``quantized`` named in ``inputs``, in words.

    Both are diffusion models in this process, rounded to nearest. A layer is right where its stored
    weight is the original's in its format, its bias the original's, and its output for its inputs
    what the two give, within what rounding the inputs may cost.
    """
    found = []
    for name, x in inputs.items():
        layer, plain = quantized.get_submodule(name), original.get_submodule(name)
        fmt = layer.weight._params.format
        expected = fmt.quantize(plain.weight.detach()).dequantize(torch.float32)
        stored = layer.weight.dequantize().float()
        if relative_l2(stored, expected) > OF_WEIGHTS:
            found.append(f"{name}: weight")
        if layer.bias is None or not torch.equal(layer.bias, plain.bias):
            found.append(f"{name}: bias")
        y = F.linear(x.float(), expected, plain.bias.float())
        if relative_l2(layer(x).float(), y) > OF_ACTIVATIONS[fmt.activations]:
            found.append(f"{name}: output")
    return found


def scaled(factor: float):
    """Breaks a weight: all of it is ``factor`` times as large."""
    return lambda weight: weight * factor


def swapped(weight: torch.Tensor) -> torch.Tensor:
    """Breaks a weight: its first two rows change places."""
    return torch.cat((weight[1:2], weight[:1], weight[2:]))


def reversed_groups(weight: torch.Tensor, group: int = 16) -> torch.Tensor:
    """Breaks a weight: the groups along K stand in reverse order."""
    return weight.unflatten(1, (-1, group)).flip(1).flatten(1)


BREAKAGES = {
    "scale + 2 %": scaled(1.02),
    "scale + 10 %": scaled(1.1),
    "rows swapped": swapped,
    "groups reversed": reversed_groups,
}
