"""convert-to-quant: ComfyUI's markers with formats that ComfyUI itself does not know.

A layer L has ``L.weight``, ``L.weight_scale`` float32 and a marker. Beside stock formats it writes
FP8 with a scale a row ([N]) or a block ([N / b, K / b]), INT8 with a scale a block, and MXFP8 with
a scale more for the whole tensor, ``L.weight_scalar``, for devices without MXFP8. A file of stock
formats alone is ComfyUI's to read.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch

from ...formats import MXFP8, BlockFloat8, Float8, Format, Int8
from ...formats.base import WEIGHT_ONLY
from ..checks import fault, require_spec
from ..header import TensorSpec
from ..reader import TensorFiles
from ..stock import STOCK_MARKER, markers
from .layer import ForeignLayer, Tensors
from .rotated_files import int8_layer, option

_E4M3 = torch.float8_e4m3fn
_ORIGIN = "convert-to-quant"


def recognise(files: TensorFiles) -> dict[str, ForeignLayer]:
    """The layers of its kind, by name; none where the files have no format of its own."""
    described = markers(files)
    names = {
        layer: values.get("format") if isinstance(values, dict) else None
        for layer, values in described.items()
    }
    if not any(name in _OWN for name in names.values() if isinstance(name, str)):
        return {}
    found = {}
    for layer, name in names.items():
        if not isinstance(name, str) or name not in _READERS:
            known = ", ".join(_READERS)
            raise fault(files, f"marks {layer} as {name!r} beside formats of {_ORIGIN} ({known})")
        weight = files.specs.get(f"{layer}.weight")
        if weight is None or len(weight.shape) != 2:
            raise fault(files, f"marks {layer} as {name}, but has no matrix {layer}.weight")
        found[layer] = _READERS[name](files, layer, weight, described[layer])
    return found


def _layer(
    files: TensorFiles,
    layer: str,
    fmt: Format,
    shape: tuple[int, ...],
    make: Callable[[Tensors], Tensors],
    how: str,
) -> ForeignLayer:
    """The layer, which owns all tensors that it may have. A scale of activations among them is not
    used: it is always 1, or is measured anew."""
    ends = ("weight", "weight_scale", "weight_scalar", "input_scale", STOCK_MARKER)
    names = tuple(name for end in ends if (name := f"{layer}.{end}") in files.specs)
    return ForeignLayer(layer, f"{_ORIGIN} {how}", fmt, shape, None, names, make)


def _scaled(layer: str, fmt: Format, shape: tuple[int, ...]) -> Callable[[Tensors], Tensors]:
    expected = fmt.parts(shape)["scale"][1]

    def make(tensors: Tensors) -> Tensors:
        scale = tensors[f"{layer}.weight_scale"].float().reshape(expected)
        return {"qdata": tensors[f"{layer}.weight"], "scale": scale}

    return make


def _require(files: TensorFiles, layer: str, weight: TensorSpec, dtype: torch.dtype) -> TensorSpec:
    require_spec(files, weight.name, dtype)
    scale = files.specs.get(f"{layer}.weight_scale")
    if scale is None:
        raise fault(files, f"lacks {layer}.weight_scale")
    return scale


def _one_or_rows(files: TensorFiles, scale: TensorSpec, rows: int) -> str:
    counts = {1: "per-tensor", rows: "per-row"}
    granularity = counts.get(scale.nbytes // scale.dtype.itemsize)
    if granularity is None:
        raise fault(files, f"has {scale.name} of shape {list(scale.shape)}, for {rows} rows")
    return granularity


def _float8(
    files: TensorFiles, layer: str, weight: TensorSpec, values: Mapping[str, Any]
) -> ForeignLayer:
    scale = _require(files, layer, weight, _E4M3)
    granularity = _one_or_rows(files, scale, weight.shape[0])
    dynamic = values["format"] == "float8_e4m3fn" and not values.get(WEIGHT_ONLY)
    fmt = Float8("float8_e4m3fn", granularity, "float8_e4m3fn" if dynamic else None)
    return _layer(files, layer, fmt, weight.shape, _scaled(layer, fmt, weight.shape), "FP8")


def _int8(
    files: TensorFiles, layer: str, weight: TensorSpec, values: Mapping[str, Any]
) -> ForeignLayer:
    if option(values, "convrot"):
        return int8_layer(files, layer, values)
    scale = _require(files, layer, weight, torch.int8)
    fmt = Int8(_one_or_rows(files, scale, weight.shape[0]))
    return _layer(files, layer, fmt, weight.shape, _scaled(layer, fmt, weight.shape), "INT8")


def _block(files: TensorFiles, weight: TensorSpec, scale: TensorSpec) -> tuple[int, int]:
    """Rows and columns that share a scale."""
    if len(scale.shape) == 2 and all(
        0 < blocks <= side and side % blocks == 0
        for blocks, side in zip(scale.shape, weight.shape, strict=True)
    ):
        return weight.shape[0] // scale.shape[0], weight.shape[1] // scale.shape[1]
    raise fault(
        files, f"has {scale.name} of {list(scale.shape)} for blocks of {list(weight.shape)}"
    )


def _float8_blocks(
    files: TensorFiles, layer: str, weight: TensorSpec, values: Mapping[str, Any]
) -> ForeignLayer:
    rows, columns = _block(files, weight, _require(files, layer, weight, _E4M3))
    fmt = BlockFloat8("float8_e4m3fn", rows, columns)
    make = _scaled(layer, fmt, weight.shape)
    return _layer(files, layer, fmt, weight.shape, make, "FP8 in blocks")


def _int8_blocks(
    files: TensorFiles, layer: str, weight: TensorSpec, values: Mapping[str, Any]
) -> ForeignLayer:
    rows, columns = _block(files, weight, _require(files, layer, weight, torch.int8))
    fmt = Int8()

    def make(tensors: Tensors) -> Tensors:
        scale = tensors[f"{layer}.weight_scale"].float()
        spread = scale.repeat_interleave(rows, 0).repeat_interleave(columns, 1)
        return fmt.quantize(tensors[f"{layer}.weight"].float() * spread).tensors

    return _layer(files, layer, fmt, weight.shape, make, "INT8 in blocks, rounded again")


def _mxfp8(
    files: TensorFiles, layer: str, weight: TensorSpec, values: Mapping[str, Any]
) -> ForeignLayer:
    fmt = MXFP8(None if values.get(WEIGHT_ONLY) else "mxfp8")
    scale = _require(files, layer, weight, _E4M3)
    expected = fmt.parts(weight.shape)
    if expected["qdata"][1] != weight.shape or scale.nbytes != math.prod(expected["scale"][1]):
        raise fault(files, f"stores {layer} as MXFP8 of {list(weight.shape)}, which has no blocks")

    def make(tensors: Tensors) -> Tensors:
        powers = tensors[scale.name].view(torch.uint8)
        return {"qdata": tensors[weight.name], "scale": powers.reshape(expected["scale"][1])}

    return _layer(files, layer, fmt, weight.shape, make, "MXFP8")


_OWN = {
    "float8_e4m3fn_rowwise": _float8,
    "float8_e4m3fn_blockwise": _float8_blocks,
    "int8_blockwise": _int8_blocks,
    "hybrid_mxfp8": _mxfp8,
}
# What one file may have beside them.
_READERS = {**_OWN, "float8_e4m3fn": _float8, "int8_tensorwise": _int8, "mxfp8": _mxfp8}
