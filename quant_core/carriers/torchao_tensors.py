"""A QuantizedWeight as the torchao tensor that means the same.

torchao is imported here alone, when a weight is attached: the arithmetic does not need it, and a
missing or mismatched torchao must not break anything else.
"""

from __future__ import annotations

import re
from functools import singledispatch
from importlib.metadata import PackageNotFoundError, version

import torch

from ..errors import TorchAOError
from ..formats import Float8, Format, Int8, QuantizedWeight, StaticFloat8

_OLDEST = (0, 17)
_INSTALL = 'Run: python -m pip install "torchao>=0.17,<0.19"'


def require_torchao() -> None:
    """TorchAOError, an ImportError with the pip line, where torchao is missing or too old."""
    try:
        found = version("torchao")
    except PackageNotFoundError:
        raise TorchAOError(f"torchao is not installed. {_INSTALL}") from None
    if tuple(map(int, re.findall(r"\d+", found)[:2])) < _OLDEST:
        raise TorchAOError(f"torchao {found} is too old. {_INSTALL}")


def to_torchao(weight: QuantizedWeight) -> torch.Tensor:
    """The torchao tensor of ``weight``'s shape and dtype, over the same storage."""
    return _carry(weight.format, weight)


@singledispatch
def _carry(fmt: Format, weight: QuantizedWeight) -> torch.Tensor:
    return _packed(weight)


@_carry.register
def _(fmt: StaticFloat8, weight: QuantizedWeight) -> torch.Tensor:
    return _packed(weight)  # torchao has the type, and no linear for it


def _packed(weight: QuantizedWeight) -> torch.Tensor:
    from .packed import PackedTensor

    return PackedTensor.of(weight)


def _block_size(fmt: Int8 | Float8, shape: tuple[int, ...]) -> list[int]:
    return [1, *shape[1:]] if fmt.granularity == "per-row" else list(shape)


def _scale(weight: QuantizedWeight) -> torch.Tensor:
    """torchao keeps one dimension a weight dimension: [1, 1] for one scale a tensor."""
    return weight.scale.reshape(weight.scale.shape or (1,) * len(weight.shape))


@_carry.register
def _(fmt: Int8, weight: QuantizedWeight) -> torch.Tensor:
    if len(weight.shape) > 2:
        return _packed(weight)
    from torchao.quantization import Int8Tensor, PerRow
    from torchao.quantization.quantize_.workflows.int8.int8_tensor import QuantizeTensorToInt8Kwargs

    dynamic = QuantizeTensorToInt8Kwargs(granularity=PerRow()) if fmt.activations else None
    return Int8Tensor(
        weight.qdata,
        _scale(weight),
        _block_size(fmt, weight.shape),
        weight.dtype,
        act_quant_kwargs=dynamic,
    )


@_carry.register
def _(fmt: Float8, weight: QuantizedWeight) -> torch.Tensor:
    from torchao.quantization import Float8Tensor, PerRow, PerTensor
    from torchao.quantization.quantize_.workflows import QuantizeTensorToFloat8Kwargs

    dynamic = mm_config = None
    if fmt.activations:
        from torchao.float8.inference import Float8MMConfig

        granularity = PerRow() if fmt.granularity == "per-row" else PerTensor()
        # The lower bound keeps an all-zero token finite.
        dynamic = QuantizeTensorToFloat8Kwargs(granularity=granularity, hp_value_lb=1e-12)
        mm_config = Float8MMConfig(use_fast_accum=True)
    return Float8Tensor(
        weight.qdata,
        _scale(weight),
        block_size=_block_size(fmt, weight.shape),
        mm_config=mm_config,
        act_quant_kwargs=dynamic,
        dtype=weight.dtype,
    )
