"""Who rounds a weight: a name, a class of bytes, and a function from a weight to its rounded self.

Contestants of one class store the same bytes a weight, but for what is said in their names.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec

import torch
from torch import nn

Rounding = Callable[[torch.Tensor], torch.Tensor]

_HALF = "four bits, 0.5625 bytes a weight"


@dataclass(frozen=True)
class Contestant:
    """group: what it competes in. round: weight [N, K] float32 -> the same, rounded."""

    group: str
    name: str
    round: Rounding


def contestants() -> list[Contestant]:
    """All that can run here; convert-to-quant only where it is installed."""
    found = [*_ours(), *_candidates(), *_torchao()]
    return found + (_convert_to_quant() if find_spec("convert_to_quant") else [])


def _ours() -> list[Contestant]:
    from graphquant.quant_core.formats import (
        MXFP8,
        NVFP4,
        BlockFloat8,
        Code4,
        Float8,
        FloatX,
        Int4,
        Int8,
        IntN,
    )

    formats = {
        "int8": {"int8": Int8(), "int8 per tensor": Int8("per-tensor")},
        "fp8": {
            "fp8": Float8(),
            "fp8 per tensor": Float8(granularity="per-tensor"),
            "fp8 in blocks": BlockFloat8(),
            "mxfp8 (1.03 bytes)": MXFP8(),
        },
        "int4, groups of 128": {
            "int4": Int4(128),
            "int4 minmax": Int4(128, "minmax"),
            "int4 hqq": Int4(128, "hqq"),
        },
        _HALF: {
            "int4, groups of 64": Int4(64),
            "nvfp4": NVFP4(),
            "nf4": Code4(),
            "fp4": Code4("fp4"),
        },
        "int4, groups of 32": {"int4": Int4(32)},
        "other widths": {
            **{f"int{bits}": IntN(bits) for bits in (2, 3, 5, 6)},
            "fp6": FloatX(),
        },
    }
    found = [
        Contestant(group, f"GraphQuant {name}", _by(fmt))
        for group, named in formats.items()
        for name, fmt in named.items()
    ]
    rotated = {"int8": "int8-convrot", _HALF: "w4a8", "other widths": "w6a8"}
    return found + [
        Contestant(group, f"GraphQuant {name}", _by_method(name)) for group, name in rotated.items()
    ]


def _by_method(name: str) -> Rounding:
    """By the format that a method gives each weight: how wide a rotation may be is its K's."""
    from graphquant.quant_core.methods import METHODS

    def round_weight(weight: torch.Tensor) -> torch.Tensor:
        fmt = METHODS[name].choose(tuple(weight.shape), "per-row").format
        return fmt.quantize(weight).dequantize(torch.float32)

    return round_weight


def _by(fmt) -> Rounding:
    return lambda weight: fmt.quantize(weight).dequantize(torch.float32)


def _candidates() -> list[Contestant]:
    """Choices that were measured and not taken, or not yet."""
    from .candidates import both_ends_int4, searched_float8, searched_int8, symmetric_int4

    return [
        Contestant("int8", "candidate: scale searched", searched_int8),
        Contestant("fp8", "candidate: scale searched", searched_float8),
        Contestant("int4, groups of 128", "candidate: symmetric, searched", symmetric_int4),
        Contestant("int4, groups of 128", "candidate: both ends searched", both_ends_int4),
    ]


def _torchao() -> list[Contestant]:
    from torchao.quantization import (
        Float8WeightOnlyConfig,
        Int8WeightOnlyConfig,
        IntxWeightOnlyConfig,
        PerGroup,
        quantize_,
    )
    from torchao.quantization.quant_primitives import MappingType

    def rounding(config: Callable) -> Rounding:
        def round_weight(weight: torch.Tensor) -> torch.Tensor:
            layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
            layer.weight = nn.Parameter(weight.clone(), requires_grad=False)
            quantize_(layer, config())
            return layer.weight.dequantize().float()

        return round_weight

    def int4(group: int, **options) -> Rounding:
        return rounding(
            lambda: IntxWeightOnlyConfig(
                weight_dtype=torch.int4, granularity=PerGroup(group), **options
            )
        )

    affine = {"mapping_type": MappingType.ASYMMETRIC}
    return [
        Contestant("int8", "torchao Int8WeightOnlyConfig", rounding(Int8WeightOnlyConfig)),
        Contestant("fp8", "torchao Float8WeightOnlyConfig", rounding(Float8WeightOnlyConfig)),
        *(
            Contestant(_HALF if group == 64 else f"int4, groups of {group}", name + note, it)
            for group in (128, 64, 32)
            for name in ["torchao IntxWeightOnlyConfig"]
            for note, it in (("", int4(group)), (", asymmetric", int4(group, **affine)))
        ),
    ]


def _convert_to_quant() -> list[Contestant]:
    """Its defaults (learned rounding) and its --simple. Its FP8 knows one scale a tensor or a row,
    its four bits are NVFP4: 0.5625 bytes a weight, as INT4 in groups of 64."""

    def learned(**options) -> Rounding:
        from convert_to_quant.converters.learned_rounding import LearnedRoundingConverter

        converter = LearnedRoundingConverter(device="cpu", **options)
        return lambda weight: converter.convert(weight)[2].float()

    def nvfp4(weight: torch.Tensor) -> torch.Tensor:
        from convert_to_quant.converters.nvfp4_converter import NVFP4Converter

        converter = NVFP4Converter(optimize=False)
        codes, blocks, scale = converter._quantize_pytorch(weight, weight.abs().max() / (448 * 6))
        return converter._dequantize_pytorch(codes, scale, blocks, torch.float32)

    found = [Contestant(_HALF, "convert-to-quant --nvfp4 --simple", nvfp4)]
    for group, target, modes in (("int8", "int8", ("row",)), ("fp8", "fp8", ("tensor", "row"))):
        for mode in modes:
            for note, simple in ((" --simple", True), ("", False)):
                options = {"target_format": target, "scaling_mode": mode}
                rounding = learned(no_learned_rounding=simple, **options)
                name = f"convert-to-quant --{target} --scaling_mode {mode}{note}"
                found.append(Contestant(group, name, rounding))
    return found
