"""ComfyUI's rotated formats: INT8 with ``convrot`` and ``asym_w4a8_int8``, whoever wrote the file.

convert_to_quant, comfy-quants, ComfyUI-INT8-Fast and other tools write them: a layer L is
``L.weight`` int8 and, for INT8, ``L.weight_scale``; for W4A8 and W6A8 ``L.weight_s_rel``,
``L.weight_s_channel`` and perhaps ``L.weight_codebook``. What they are stands in ``L.comfy_quant``
or in the file's metadata. ComfyUI-INT8-Fast leaves the name of the format out, and such a file
loads nowhere else. ComfyUI reads the others too, but rounds a LoRA in, and older ones know no W4A8.

Tested by tests/quant_core/storage/foreign/test_convert_to_quant.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from ...formats import Format, Int8, Int8ConvRot, RotatedGroups
from ...formats.base import WEIGHT_ONLY
from ..checks import fault, require_spec
from ..reader import TensorFiles
from ..stock import METADATA, STOCK_MARKER, markers
from .layer import ForeignLayer, Tensors

_INT8, _GROUPS = "int8_tensorwise", "asym_w4a8_int8"
_ROTATION, _GROUP = 256, 16
_SCALE_DTYPES = {torch.uint8: "float8_e4m3fn"} | {
    getattr(torch, name): name for name in ("float8_e4m3fn", "float32")
}


def recognise(files: TensorFiles) -> dict[str, ForeignLayer]:
    """The quantized layers in ``files`` by name; empty where none is rotated, or where others than
    INT8 are quantized besides, which ComfyUI reads."""
    told = files.metadata.get(METADATA, "")
    in_metadata = "convrot" in told or _GROUPS in told
    if not in_metadata and not any(n.endswith(f".{STOCK_MARKER}") for n in files.specs):
        return {}
    marked = {name: _named(files, name, values) for name, values in markers(files).items()}
    if not all(values.get("format") in (_INT8, _GROUPS) for values in marked.values()):
        return {}
    if not any(v["format"] == _GROUPS or option(v, "convrot") for v in marked.values()):
        return {}
    readers = {_INT8: int8_layer, _GROUPS: _groups}
    return {n: readers[values["format"]](files, n, values) for n, values in marked.items()}


def _named(files: TensorFiles, name: str, values: Any) -> dict[str, Any]:
    """``values`` of a marker, with the format that ComfyUI-INT8-Fast leaves out."""
    if not isinstance(values, dict):
        return {}
    weight = files.specs.get(f"{name}.weight")
    nameless = "format" not in values and option(values, "convrot") is not None
    is_int8 = weight is not None and weight.dtype == torch.int8
    return {**values, "format": _INT8} if nameless and is_int8 else values


def option(values: Mapping[str, Any], name: str, default: Any = None) -> Any:
    """An option of a marker; older writers put them into "params"."""
    params = values.get("params")
    inner = params.get(name, default) if isinstance(params, dict) else default
    return values.get(name, inner)


def int8_layer(files: TensorFiles, name: str, values: Mapping[str, Any]) -> ForeignLayer:
    """The layer ``name`` of int8_tensorwise, rotated or not, as its marker's ``values`` say."""
    weight = _matrix(files, name)
    scale = require_spec(files, f"{name}.weight_scale", torch.float32)
    activations = None if values.get(WEIGHT_ONLY) else "int8"
    count = scale.nbytes // 4
    rows = weight.shape[0]
    if count not in (1, rows):
        raise fault(files, f"has {count} scales in {scale.name}, where {rows} were expected")
    if option(values, "convrot"):
        fmt: Format = _checked(files, name, Int8ConvRot, _rotation(values), activations)
        _require_multiple(files, name, weight.shape[1], fmt.rotation)
        shape: tuple[int, ...] = (rows, 1)
    else:
        fmt = Int8("per-row" if count > 1 or rows == 1 else "per-tensor", activations)
        shape = (rows, 1) if fmt.granularity == "per-row" else ()

    def make(tensors: Tensors) -> Tensors:
        steps = tensors[scale.name].reshape(-1)
        steps = steps.expand(rows) if shape else steps
        return {"qdata": tensors[weight.name], "scale": steps.reshape(shape).contiguous()}

    return _layer(files, name, fmt, weight.shape, (weight.name, scale.name), make)


def _groups(files: TensorFiles, name: str, values: Mapping[str, Any]) -> ForeignLayer:
    weight = _matrix(files, name)
    if f"{name}.weight_correction" in files.specs:
        raise fault(files, f"has an asymmetric {name} (weight_correction), which nothing reads")
    scale_name, channel_name = f"{name}.weight_s_rel", f"{name}.weight_s_channel"
    scale = files.specs.get(scale_name)
    if scale is None or scale.dtype not in _SCALE_DTYPES or len(scale.shape) != 2:
        raise fault(files, f"lacks {scale_name}, or has it otherwise than as rows of FP8 scales")
    channel = require_spec(files, channel_name, torch.float32, weight.shape[:1])
    group = option(values, "group_size", _GROUP)
    if type(group) is not int or group < 1:
        raise fault(files, f"gives {name} groups of {group!r}")
    k = scale.shape[1] * group
    bits = 8 * weight.shape[1] // max(k, 1)
    names = [weight.name, scale.name, channel.name]
    table = f"{name}.weight_codebook"
    if table in files.specs:
        require_spec(files, table, torch.float32, (16,))
        names.append(table)
    fmt = _checked(
        files, name, RotatedGroups, bits, group, _rotation(values), table in files.specs,
        _SCALE_DTYPES[scale.dtype], None if values.get(WEIGHT_ONLY) else "int8",
    )  # fmt: skip
    _require_multiple(files, name, k, fmt.rotation)

    def make(tensors: Tensors) -> Tensors:
        parts = {"qdata": tensors[weight.name], "scale_2": tensors[channel.name]}
        parts["scale"] = tensors[scale.name].view(getattr(torch, fmt.scale_dtype))
        return parts | ({"codebook": tensors[table]} if fmt.codebook else {})

    return _layer(files, name, fmt, (weight.shape[0], k), tuple(names), make)


def _layer(
    files: TensorFiles,
    name: str,
    fmt: Format,
    shape: tuple[int, ...],
    tensors: tuple[str, ...],
    make: Any,
) -> ForeignLayer:
    marker = f"{name}.{STOCK_MARKER}"
    taken = (*tensors, marker) if marker in files.specs else tensors
    stock = fmt.stock_marker()["format"]
    return ForeignLayer(name, f"ComfyUI's {stock}", fmt, tuple(shape), None, taken, make)


def _matrix(files: TensorFiles, name: str) -> Any:
    weight = require_spec(files, f"{name}.weight", torch.int8)
    if len(weight.shape) != 2:
        raise fault(files, f"has {weight.name} of shape {list(weight.shape)}, not a matrix")
    return weight


def _rotation(values: Mapping[str, Any]) -> Any:
    return option(values, "convrot_groupsize", _ROTATION)


def _checked(files: TensorFiles, name: str, fmt: type[Format], *values: Any) -> Any:
    try:
        return fmt(*values)
    except (TypeError, ValueError) as error:
        raise fault(files, f"marks {name} with values that cannot be ({error})") from error


def _require_multiple(files: TensorFiles, name: str, k: int, rotation: int) -> None:
    if k % rotation:
        raise fault(files, f"rotates {name} by {rotation}, which does not divide its {k} columns")
