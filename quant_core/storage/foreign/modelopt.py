"""NVIDIA ModelOpt's exports: FP8 with a scale a tensor or a row, and NVFP4.

A layer L is ``L.weight``, ``L.weight_scale``, of NVFP4 ``L.weight_scale_2``, and ``L.input_scale``
where activations were calibrated. No marker says so; ComfyUI's own files, which use the same names,
have markers. Of NVFP4's two codes in a byte the first is in the low nibble, and block scales lie in
rows: both are turned to where ComfyUI and the tensor cores look for them. Of FP8 with one scale a
tensor the activations are scaled as they were calibrated; otherwise they stay as they are.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F

from ...codes.swizzle import padded_to, swizzle
from ...formats import NVFP4, Float8, Format, StaticFloat8
from ...formats.nvfp4 import BLOCK
from ..checks import fault, require_spec
from ..header import TensorSpec
from ..reader import TensorFiles
from ..stock import is_marked
from .layer import ForeignLayer, Tensors, layers_with

_INPUT = "input_scale"


def recognise(files: TensorFiles) -> dict[str, ForeignLayer]:
    """The quantized layers in ``files`` by name; empty where the files are not of this library."""
    if is_marked(files):
        return {}
    found = {}
    for name in layers_with(files, "weight_scale"):
        weight = files.specs.get(f"{name}.weight")
        if weight is None:
            raise fault(files, f"has {name}.weight_scale, but no {name}.weight")
        if len(weight.shape) != 2:
            raise fault(files, f"has {weight.name} of shape {list(weight.shape)}, not a matrix")
        if weight.dtype == torch.float8_e4m3fn:
            found[name] = _float8(files, name, weight)
        elif weight.dtype == torch.uint8:
            found[name] = _nvfp4(files, name, weight)
        else:
            raise fault(files, f"has {weight.name} as {weight.dtype}, and nothing says how")
    return found


def _float8(files: TensorFiles, name: str, weight: TensorSpec) -> ForeignLayer:
    rows = weight.shape[0]
    scale = require_spec(files, f"{name}.weight_scale", torch.float32)
    counts = {(): "per-tensor", (1,): "per-tensor", (rows,): "per-row", (rows, 1): "per-row"}
    granularity = counts.get(scale.shape)
    if granularity is None:
        raise fault(files, f"has {scale.name} of shape {list(scale.shape)}, wrong for FP8")
    calibrated = files.specs.get(f"{name}.{_INPUT}")
    if calibrated is None or granularity != "per-tensor":
        fmt: Format = Float8(granularity=granularity)
    else:
        fmt = StaticFloat8(input_scale=_number(files, calibrated))

    def make(tensors: Tensors) -> Tensors:
        scales = tensors[scale.name].reshape(fmt.parts(weight.shape)["scale"][1])
        parts = {"qdata": tensors[weight.name], "scale": scales}
        if fmt.needs_input_scale:
            parts["input_scale"] = tensors[calibrated.name].reshape(())
        return parts

    return _layer(files, name, "ModelOpt FP8", fmt, weight.shape, (weight, scale), make)


def _number(files: TensorFiles, spec: TensorSpec) -> float:
    """The positive number in a tensor of one."""
    require_spec(files, spec.name, torch.float32)
    value = files.read(spec.name).item() if spec.shape in ((), (1,)) else math.nan
    if not 0 < value < math.inf:
        raise fault(files, f"has {spec.name}, which is not a positive number")
    return value


def _nvfp4(files: TensorFiles, name: str, weight: TensorSpec) -> ForeignLayer:
    n, k = weight.shape[0], 2 * weight.shape[1]
    if k % BLOCK:
        raise fault(files, f"has {weight.name} with rows of {k} codes, not whole blocks")
    scale = require_spec(files, f"{name}.weight_scale", torch.float8_e4m3fn, (n, k // BLOCK))
    whole = require_spec(files, f"{name}.weight_scale_2", torch.float32)
    if whole.shape not in ((), (1,)):
        raise fault(files, f"has {whole.name} of shape {list(whole.shape)}, not one number")

    def make(tensors: Tensors) -> Tensors:
        return nvfp4_parts(
            tensors[weight.name], tensors[scale.name], tensors[whole.name].reshape(())
        )

    return _layer(files, name, "ModelOpt NVFP4", NVFP4(), (n, k), (weight, scale, whole), make)


def nvfp4_parts(codes: torch.Tensor, scale: torch.Tensor, scale_2: torch.Tensor) -> Tensors:
    """The parts of NVFP4 from codes [N, K / 2] whose first code is in the low nibble, and from
    scales in rows."""
    padding = (0, 0, 0, padded_to(len(codes), BLOCK) - len(codes))
    swapped = (codes << 4) | (codes >> 4)
    scales = F.pad(scale.view(torch.uint8), padding).view(scale.dtype)
    return {"qdata": F.pad(swapped, padding), "scale": swizzle(scales), "scale_2": scale_2}


def _layer(
    files: TensorFiles,
    name: str,
    origin: str,
    fmt: Format,
    shape: tuple[int, ...],
    specs: tuple[TensorSpec, ...],
    make: Callable[[Tensors], Tensors],
) -> ForeignLayer:
    names = tuple(spec.name for spec in specs)
    calibrated = f"{name}.{_INPUT}"
    if calibrated in files.specs:
        names += (calibrated,)
        if not fmt.needs_input_scale:
            origin += " without its scale of activations"
    return ForeignLayer(name, origin, fmt, shape, None, names, make)
