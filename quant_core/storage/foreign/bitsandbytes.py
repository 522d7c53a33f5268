"""bitsandbytes: LLM.int8(), NF4 and FP4.

An INT8 layer L is ``L.weight`` int8 [N, K], ``L.SCB`` float32 [N], the largest magnitude of each
row, and ``L.weight_format``, 0 for rows. A 4-bit one is ``L.weight``, two codes to a byte, flat; a
scale a block in ``L.weight.absmax``, or its 8-bit codes, whose scales are ``nested_absmax``; the
tables of values in ``quant_map`` and ``nested_quant_map``; and a JSON object with shape, block size
and dtype in ``L.weight.quant_state.bitsandbytes__nf4`` (or ``__fp4``).
"""

from __future__ import annotations

import math
from typing import Any

import torch

from ...codes.dynamic_code import DYNAMIC_CODE
from ...formats import Code4, LlmInt8
from ...formats.code4 import CODES
from ..checks import fault, read_json, require_spec
from ..reader import TensorFiles
from .layer import ForeignLayer, Tensors, layers_with

_STATE = "weight.quant_state.bitsandbytes__"
_NESTED_BLOCK = 256


def recognise(files: TensorFiles) -> dict[str, ForeignLayer]:
    """The quantized layers in ``files`` by name; empty where the files are not of this library."""
    layers = {name: _int8(files, name) for name in layers_with(files, "SCB")}
    for code in CODES:
        ending = f"{_STATE}{code}"
        layers |= {name: _four_bits(files, name, code) for name in layers_with(files, ending)}
    return layers


def _int8(files: TensorFiles, name: str) -> ForeignLayer:
    weight = require_spec(files, f"{name}.weight", torch.int8)
    if len(weight.shape) != 2:
        raise fault(files, f"has {weight.name} of shape {list(weight.shape)}, not a matrix")
    maxima = require_spec(files, f"{name}.SCB", torch.float32, weight.shape[:1])
    names = [weight.name, maxima.name]
    order = f"{name}.weight_format"
    if order in files.specs:
        if files.specs[order].nbytes > 8 or files.read(order).any():
            raise fault(files, f"stores {name} in the tiles of a GPU kernel, not in rows")
        names.append(order)

    def make(tensors: Tensors) -> Tensors:
        return {"qdata": tensors[weight.name], "scale": tensors[maxima.name].view(-1, 1) / 127}

    return ForeignLayer(
        name, "bitsandbytes INT8", LlmInt8(), weight.shape, None, tuple(names), make
    )


def _four_bits(files: TensorFiles, name: str, code: str) -> ForeignLayer:
    state = read_json(files, f"{name}.{_STATE}{code}")
    shape = _shape(files, name, state)
    nested = "nested_blocksize" in state
    fmt = Code4(code, _block_size(files, name, state), nested)
    blocks = -(-math.prod(shape) // fmt.block_size)
    packed = files.specs.get(f"{name}.weight")
    if packed is None or packed.nbytes != -(-math.prod(shape) // 2):
        raise fault(files, f"has no {name}.weight of {math.prod(shape)} codes of 4 bits")
    absmax = torch.uint8 if nested else torch.float32
    tables = {"quant_map": CODES[code]} | ({"nested_quant_map": DYNAMIC_CODE} if nested else {})
    parts = {"absmax": f"{name}.weight.absmax"}
    require_spec(files, parts["absmax"], absmax, (blocks,))
    if nested:
        parts["nested"] = f"{name}.weight.nested_absmax"
        require_spec(files, parts["nested"], torch.float32, (-(-blocks // _NESTED_BLOCK),))
    for table, values in tables.items():
        _require_table(files, f"{name}.weight.{table}", values)

    def make(tensors: Tensors) -> Tensors:
        qdata = tensors[packed.name].reshape(-1).view(torch.uint8)
        scales = {"qdata": qdata, "scale": tensors[parts["absmax"]]}
        if not nested:
            return scales
        offset = torch.tensor(state["nested_offset"], dtype=torch.float32)
        return {**scales, "zero_point": offset, "scale_2": tensors[parts["nested"]]}

    names = (
        packed.name,
        *parts.values(),
        *(f"{name}.weight.{table}" for table in tables),
        f"{name}.{_STATE}{code}",
    )
    dtype = getattr(torch, str(state.get("dtype")), None)
    dtype = dtype if isinstance(dtype, torch.dtype) and dtype.is_floating_point else None
    return ForeignLayer(name, f"bitsandbytes {code.upper()}", fmt, shape, dtype, names, make)


def _shape(files: TensorFiles, name: str, state: dict[str, Any]) -> tuple[int, ...]:
    shape = state.get("shape")
    if (
        not isinstance(shape, list)
        or len(shape) != 2
        or not all(type(side) is int and side > 0 for side in shape)
    ):
        raise fault(files, f"says that {name}.weight has the shape {shape!r}")
    return tuple(shape)


def _block_size(files: TensorFiles, name: str, state: dict[str, Any]) -> int:
    size, nested = state.get("blocksize"), state.get("nested_blocksize", _NESTED_BLOCK)
    offset = state.get("nested_offset", 0.0)
    sound = type(size) is int and size >= 2 and size % 2 == 0 and type(offset) in (int, float)
    sound = sound and math.isfinite(offset)
    if not sound or nested != _NESTED_BLOCK:
        raise fault(files, f"says that {name}.weight has blocks of {size!r}, nested {nested!r}")
    return size


def _require_table(files: TensorFiles, name: str, values: tuple[float, ...]) -> None:
    """The file may not mean other values by the codes than this format does."""
    require_spec(files, name, torch.float32, (len(values),))
    if not torch.equal(files.read(name), torch.tensor(values, dtype=torch.float32)):
        raise fault(files, f"has a table of its own in {name}, which is not read")
