"""What each of torchao's tensor subclasses is here: the same codes and scales where a format has
them, and otherwise the dequantized weight, rounded again to INT8 per row.

Tested by tests/quant_core/storage/foreign/test_torchao.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from ...codes.bits import pack
from ...formats import NVFP4, BlockFloat8, Float8, Format, Int4Dynamic, Int8, IntN
from ...formats.nvfp4 import BLOCK
from ..checks import fault
from ..header import TensorSpec
from ..reader import TensorFiles
from .layer import ForeignLayer, Tensors
from .modelopt import nvfp4_parts


@dataclass(frozen=True)
class Flattened:
    """One weight as torchao's file has it: a tensor subclass taken apart.

    names: of its tensors, by part. attributes: of the subclass, as described in the metadata.
    """

    files: TensorFiles
    name: str
    names: Mapping[str, str]
    attributes: Mapping[str, Any]

    def spec(self, part: str) -> TensorSpec:
        """The header's entry of a part."""
        return self.files.specs[self.names[part]]

    def value(self, key: str) -> Any:
        """An attribute, taken out of {"_type": ..., "_data": ...} where it is wrapped so."""
        found = self.attributes.get(key)
        return found.get("_data") if isinstance(found, dict) else found

    def dtype(self, key: str = "dtype") -> torch.dtype | None:
        """The floating point dtype that an attribute names, or None."""
        found = getattr(torch, str(self.value(key)), None)
        return found if isinstance(found, torch.dtype) and found.is_floating_point else None

    def block(self) -> tuple[int, int]:
        """The size of the block of weights that shares a scale. StorageError where it does not
        divide the weight."""
        shape, found = self.spec("qdata").shape, self.attributes.get("block_size")
        sound = isinstance(found, list) and len(found) == 2 and len(shape) == 2
        if not sound or not all(
            type(size) is int and size > 0 and side > 0 and side % size == 0
            for size, side in zip(found, shape, strict=True)
        ):
            raise self.fault(f"of {list(shape)} in blocks of {found!r}")
        blocks = math.prod(shape) // math.prod(found)
        for part in self.names.keys() & {"scale", "zero_point"}:
            if math.prod(self.spec(part).shape) != blocks:
                raise self.fault(f"in {blocks} blocks, with {part} {list(self.spec(part).shape)}")
        return tuple(found)

    def all_zero(self, part: str) -> bool:
        """Whether a part is missing or holds zeros alone."""
        return part not in self.names or not self.files.read(self.names[part]).any()

    def fault(self, text: str) -> Exception:
        """A StorageError that says what is wrong with this weight."""
        return fault(self.files, f"stores {self.name}.weight {text}")

    def layer(
        self,
        fmt: Format,
        make: Callable[[Tensors], Tensors],
        shape: tuple[int, ...],
        dtype: torch.dtype | None,
        how: str = "",
    ) -> ForeignLayer:
        """The layer whose parts ``make`` gives, from the tensors by part."""

        def by_part(tensors: Tensors) -> Tensors:
            return make({part: tensors[name] for part, name in self.names.items()})

        names = tuple(self.names.values())
        return ForeignLayer(self.name, f"torchao {how}", fmt, shape, dtype, names, by_part)

    def same_codes(self, fmt: Format, how: str) -> ForeignLayer:
        """The layer whose codes and scales are the format's own; only the shape of the scales may
        differ."""
        shape = self.spec("qdata").shape
        dtype, stored = fmt.parts(shape)["scale"]

        def make(parts: Tensors) -> Tensors:
            return {"qdata": parts["qdata"], "scale": parts["scale"].to(dtype).reshape(stored)}

        return self.layer(fmt, make, shape, self.dtype(), how)

    def rounded_again(self, how: str) -> ForeignLayer:
        """The layer ``(code - zero point) * scale``, in blocks, rounded again to INT8 per row."""
        rows, columns = self.block()
        shape, fmt = self.spec("qdata").shape, Int8()

        def spread(values: torch.Tensor) -> torch.Tensor:
            return values.float().repeat_interleave(rows, 0).repeat_interleave(columns, 1)

        def make(parts: Tensors) -> Tensors:
            codes = parts["qdata"].float()
            if "zero_point" in parts:
                codes = codes - spread(parts["zero_point"])
            return fmt.quantize(codes * spread(parts["scale"])).tensors

        return self.layer(fmt, make, shape, self.dtype(), f"{how}, rounded again")


BUILDERS: dict[str, Callable[[Flattened], ForeignLayer]] = {}


def _register(build: Callable[[Flattened], ForeignLayer]) -> Callable[[Flattened], ForeignLayer]:
    """By torchao's name of the class, which is the function's."""
    BUILDERS[build.__name__] = build
    return build


@_register
def Int8Tensor(stored: Flattened) -> ForeignLayer:
    """torchao's INT8 tensor: the same codes per row or tensor, else rounded again."""
    if stored.spec("qdata").dtype != torch.int8:
        raise stored.fault(f"as INT8, in {stored.spec('qdata').dtype}")
    granularity = _granularity(stored)
    dynamic = bool(stored.attributes.get("act_quant_kwargs"))
    if granularity is None or not stored.all_zero("zero_point"):
        return stored.rounded_again("INT8 in groups")
    return stored.same_codes(Int8(granularity, "int8" if dynamic else None), "INT8")


@_register
def Float8Tensor(stored: Flattened) -> ForeignLayer:
    """torchao's FP8 tensor: the same codes, per row, per tensor or in blocks."""
    dtype = str(stored.spec("qdata").dtype).removeprefix("torch.")
    if dtype not in ("float8_e4m3fn", "float8_e5m2"):
        raise stored.fault(f"as FP8, in {dtype}")
    granularity = _granularity(stored)
    if granularity is None:
        return stored.same_codes(BlockFloat8(dtype, *stored.block()), "FP8 in blocks")
    dynamic = bool(stored.attributes.get("act_quant_kwargs")) and dtype == "float8_e4m3fn"
    return stored.same_codes(Float8(dtype, granularity, dtype if dynamic else None), "FP8")


@_register
def IntxUnpackedToInt8Tensor(stored: Flattened) -> ForeignLayer:
    """torchao's INT1 to INT8 in groups: the same codes where symmetric, else rounded again."""
    target = str(stored.value("target_dtype"))
    bits = int(target.removeprefix("int")) if target in {f"int{n}" for n in range(1, 9)} else 0
    spec = stored.spec("qdata")
    if not bits or spec.dtype != torch.int8:
        raise stored.fault(f"as {target}, in {spec.dtype}")
    rows, group = stored.block()
    exact = rows == 1 and stored.spec("scale").dtype == torch.bfloat16 and 2 <= bits <= 7
    if not exact or not stored.all_zero("zero_point"):
        return stored.rounded_again(f"INT{bits} in groups of {group}")
    dynamic = stored.attributes.get("activation_quantization") is not None
    same = {"bits": bits, "group_size": group, "symmetric": True}
    fmt = Int4Dynamic(**same) if dynamic and bits == 4 else IntN(**same)

    def make(parts: Tensors) -> Tensors:
        codes = (parts["qdata"].to(torch.int16) + 2 ** (bits - 1)).to(torch.uint8)
        return {"qdata": pack(codes, bits), "scale": parts["scale"].reshape(spec.shape[0], -1)}

    return stored.layer(fmt, make, spec.shape, stored.dtype(), f"INT{bits}")


@_register
def NVFP4Tensor(stored: Flattened) -> ForeignLayer:
    """torchao's NVFP4 tensor: the same codes, in ComfyUI's order."""
    codes, scale = stored.spec("qdata"), stored.spec("scale")
    if codes.dtype != torch.uint8 or len(codes.shape) != 2 or codes.shape[0] % BLOCK:
        raise stored.fault(f"as NVFP4, in {codes.dtype} {list(codes.shape)}")
    n, k = codes.shape[0], 2 * codes.shape[1]
    fmt = NVFP4()
    swizzled = bool(stored.attributes.get("is_swizzled_scales"))
    expected = fmt.parts((n, k))["scale"][1]
    if k % BLOCK or scale.nbytes != (expected[0] * expected[1] if swizzled else n * k // BLOCK):
        raise stored.fault(f"as NVFP4 of {n} x {k}, with {scale.nbytes} scales")

    def make(parts: Tensors) -> Tensors:
        scale_2 = parts.get("per_tensor_scale", torch.ones(())).float().reshape(())
        rows = parts["scale"].reshape(-1)
        if not swizzled:
            return nvfp4_parts(parts["qdata"], rows.view(n, -1), scale_2)
        swapped = (parts["qdata"] << 4) | (parts["qdata"] >> 4)
        return {"qdata": swapped, "scale": rows.view(expected), "scale_2": scale_2}

    return stored.layer(fmt, make, (n, k), stored.dtype("orig_dtype"), "NVFP4")


def _granularity(stored: Flattened) -> str | None:
    """Per row, per tensor, or None for groups and blocks."""
    block, shape = stored.block(), stored.spec("qdata").shape
    return {(1, shape[-1]): "per-row", shape: "per-tensor"}.get(block)
