"""Other tools' ways to store a weight: a name, bits a weight, and a function that rounds it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec

import torch
from torch import nn

from . import ggml


@dataclass(frozen=True)
class Contestant:
    """bits: a weight, scales included. round: weight [N, K] float32 -> the same, rounded."""

    name: str
    bits: float
    round: Callable[[torch.Tensor], torch.Tensor]


# Methods of ours at each size, and the bits that they take.
OURS = {
    "int3": 3.5,
    "int4": 4.25,
    "nf4-fine": 4.25,
    "nf4": 4.5,
    "nvfp4": 4.5,
    "w4a8": 4.51,
    "nf4-fine-g16": 4.5,
    "int5": 5.5,
    "int6": 6.5,
    "int8": 8.01,
}


def others() -> list[Contestant]:
    """All that can run here: what is not installed is left out."""
    found = _torchao()
    found += _hqq() if find_spec("hqq") else []
    found += _bitsandbytes() if find_spec("bitsandbytes") else []
    found += _gguf() if ggml.library() else []
    return found + (_convert_to_quant() if find_spec("convert_to_quant") else [])


def _torchao() -> list[Contestant]:
    from torchao.quantization import (
        Int8WeightOnlyConfig,
        IntxWeightOnlyConfig,
        PerGroup,
        quantize_,
    )
    from torchao.quantization.quant_primitives import MappingType

    def rounding(config) -> Callable:
        def round_weight(weight: torch.Tensor) -> torch.Tensor:
            layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
            layer.weight = nn.Parameter(weight.clone(), requires_grad=False)
            quantize_(layer, config())
            return layer.weight.dequantize().float()

        return round_weight

    def intx(bits: int, group: int) -> Callable:
        return rounding(
            lambda: IntxWeightOnlyConfig(
                weight_dtype=getattr(torch, f"int{bits}"),
                granularity=PerGroup(group),
                mapping_type=MappingType.ASYMMETRIC,
            )
        )

    return [
        Contestant("torchao int4, groups of 128", 4.25, intx(4, 128)),
        Contestant("torchao int4, groups of 64", 4.5, intx(4, 64)),
        Contestant("torchao int5, groups of 64", 5.5, intx(5, 64)),
        Contestant("torchao int8", 8.01, rounding(Int8WeightOnlyConfig)),
    ]


def _hqq() -> list[Contestant]:
    from hqq.core.quantize import Quantizer

    def rounded(weight: torch.Tensor, group: int) -> torch.Tensor:
        options = {"nbits": 4, "group_size": group, "axis": 1}
        codes, meta = Quantizer.quantize(
            weight.clone(), **options, device="cpu", compute_dtype=torch.float16
        )
        return Quantizer.dequantize(codes, meta).float().view(weight.shape)

    return [
        Contestant(f"HQQ, groups of {group}", 4 + 32 / group, partial(rounded, group=group))
        for group in (128, 64)
    ]


def _bitsandbytes() -> list[Contestant]:
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    def nf4(weight: torch.Tensor) -> torch.Tensor:
        return dequantize_4bit(*quantize_4bit(weight.contiguous(), quant_type="nf4")).float()

    return [Contestant("bitsandbytes nf4", 4.5, nf4)]


def _gguf() -> list[Contestant]:
    bits = {"IQ4_XS": 4.25, "Q4_K": 4.5, "Q5_K": 5.5, "Q6_K": 6.56}
    return [
        Contestant(f"GGUF {kind}", size, lambda weight, kind=kind: ggml.rounded(weight, kind))
        for kind, size in bits.items()
    ]


def _convert_to_quant() -> list[Contestant]:
    from convert_to_quant.converters.nvfp4_converter import NVFP4Converter

    def nvfp4(weight: torch.Tensor) -> torch.Tensor:
        converter = NVFP4Converter(optimize=False)
        codes, blocks, scale = converter._quantize_pytorch(weight, weight.abs().max() / (448 * 6))
        return converter._dequantize_pytorch(codes, scale, blocks, torch.float32)

    return [Contestant("convert-to-quant --nvfp4", 4.5, nvfp4)]
