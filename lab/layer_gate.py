"""The gate of single layers: a quantized layer computes what its format says, nothing else."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F

from .sampling import relative_l2

# What rounding a layer's inputs may cost its output, by what they are rounded to.
OF_ACTIVATIONS = {
    None: 1e-3,
    "int8": 0.03,
    "float8_e4m3fn": 0.05,
    "mxfp8": 0.05,
    "nvfp4": 0.15,
    "int4": 0.15,
}
OF_WEIGHTS = 1e-3
OF_GAIN = 0.01
"""How far the output may be longer or shorter along what is expected. Rounding the inputs is noise,
which changes nothing along it: so a scale that is 2 % off shows in products whose noise is 3 %."""


OF_BIAS = 0.2
"""How much of the bias may lack in the mean output, or be there twice, by the same reason."""


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
        expected = _rounded(layer.weight, plain.weight.detach())
        stored = layer.weight.dequantize().float()
        if relative_l2(stored, expected) > OF_WEIGHTS:
            found.append(f"{name}: weight")
        if layer.bias is None or not torch.equal(layer.bias, plain.bias):
            found.append(f"{name}: bias")
        y = F.linear(x.float(), expected, plain.bias.float())
        output = layer(x).float()
        if relative_l2(output, y) > OF_ACTIVATIONS[fmt.activations]:
            found.append(f"{name}: output")
        elif abs(_along(output - y, y)) > OF_GAIN:
            found.append(f"{name}: gain")
        elif abs(_along((output - y).flatten(0, -2).mean(0), plain.bias.float())) > OF_BIAS:
            found.append(f"{name}: bias of the output")
    return found


def _rounded(stored: torch.Tensor, original: torch.Tensor) -> torch.Tensor:
    """``original`` rounded to nearest in the format of the quantized parameter ``stored``; where
    that smooths, as ``stored`` is smoothed."""
    fmt = stored._params.format
    if not fmt.needs_calibration:
        return fmt.quantize(original).dequantize(torch.float32)
    from graphquant.quant_core.rounding.low_rank_branch import Split

    smooth = stored._params.smooth_factor.float()
    split = Split.of(fmt, original.float(), smooth)
    return split.to_nearest(fmt, original.dtype).dequantize(torch.float32)


def _along(error: torch.Tensor, direction: torch.Tensor) -> float:
    """How many times ``direction`` is in ``error``."""
    return ((error * direction).sum() / direction.square().sum()).item()


def scaled(factor: float):
    """Breaks a weight: all of it is ``factor`` times as large."""
    return lambda weight: weight * factor


def swapped(weight: torch.Tensor) -> torch.Tensor:
    """Breaks a weight: its first two rows change places."""
    return torch.cat((weight[1:2], weight[:1], weight[2:]))


def reversed_groups(weight: torch.Tensor, group: int = 16) -> torch.Tensor:
    """Breaks a weight: the groups along K stand in reverse order."""
    return weight.unflatten(1, (-1, group)).flip(1).flatten(1)


def without_bias(linear):
    """Breaks a format's product: the bias is forgotten."""
    return lambda self, x, weight, bias: linear(self, x, weight, None)


def louder(linear):
    """Breaks a format's product: it is 2 % too large."""
    return lambda self, x, weight, bias: linear(self, x, weight, bias) * 1.02


BREAKAGES = {
    "scale + 2 %": scaled(1.02),
    "scale + 10 %": scaled(1.1),
    "rows swapped": swapped,
    "groups reversed": reversed_groups,
}
PRODUCTS = {"bias forgotten": without_bias, "2 % too large": louder}
