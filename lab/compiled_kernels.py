"""Triton's kernels compiled for GPUs that are not there, and what their machine code says.

python -m lab.compiled_kernels    # every tile and coding, for every GPU: minutes

"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from unittest.mock import patch

from .pack import load_pack

load_pack()

from graphquant.quant_core.formats import NVFP4, Code4, Float8, FloatX, Int4, Int8  # noqa: E402
from graphquant.quant_core.kernels.triton.launch_products import (  # noqa: E402
    ALL_TILES,
    Tile,
    tiles_for,
)
from graphquant.quant_core.kernels.triton.start import kernel_named  # noqa: E402


@dataclass(frozen=True)
class Target:
    """shared: bytes of shared memory that a program may have. float8: it multiplies FP8."""

    name: str
    shared: int
    float8: bool


GPUS = {
    75: Target("RTX 20", 64 * 1024, False),
    80: Target("A100", 163 * 1024, False),
    86: Target("RTX 30", 99 * 1024, False),
    89: Target("RTX 40", 99 * 1024, True),
    90: Target("H100", 227 * 1024, True),
    120: Target("RTX 50", 99 * 1024, True),
}


@dataclass(frozen=True)
class CompiledKernel:
    """registers, spilled: of a thread; spilled in bytes. shared: bytes of a program."""

    ptx: str = field(repr=False)
    registers: int
    spilled: int
    shared: int


@dataclass(frozen=True)
class Case:
    """A kernel with the types of its arguments, in their order, and its constants. aligned: all
    arguments but M are multiples of 16, which a launch finds out by itself."""

    name: str
    arguments: dict[str, str]
    constants: dict
    warps: int = 4
    stages: int = 3
    label: str = ""

    def __str__(self) -> str:
        return f"{self.name} {self.label}".strip()

    @property
    def high(self) -> int:
        return self.constants.get("BLOCK_M", 0)

    def compile(self, architecture: int, folder: Path) -> CompiledKernel:
        """folder: for Triton's cache."""
        import triton
        from triton.backends.compiler import GPUTarget
        from triton.compiler import ASTSource

        places = {argument: (place,) for place, argument in enumerate(self.arguments)}
        aligned = [n for n, kind in self.arguments.items() if n != "M" and "desc" not in kind]
        source = ASTSource(
            kernel_named(self.name),
            {**self.arguments, **dict.fromkeys(self.constants, "constexpr")},
            self.constants,
            {places[argument]: [["tt.divisibility", 16]] for argument in aligned},
        )
        options = {"num_warps": self.warps, "num_stages": self.stages}
        with patch.dict(os.environ, {"TRITON_CACHE_DIR": str(folder)}):
            target = GPUTarget("cuda", architecture, 32)
            made = triton.compile(source, target=target, options=options)
        return _read(made, folder)


def _read(made, folder: Path) -> CompiledKernel:
    """From what the vendor's tool says of the machine code."""
    import triton

    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    file = folder / "kernel.cubin"
    file.write_bytes(made.asm["cubin"])
    told = subprocess.run(
        [tool, "--dump-resource-usage", file], capture_output=True, text=True, check=True
    ).stdout
    usage = {name: int(number) for name, number in re.findall(r"(\w+):(\d+)", told)}
    spilled = usage.get("STACK", 0) + usage.get("LOCAL", 0)
    return CompiledKernel(made.asm["ptx"], usage["REG"], spilled, made.metadata.shared)


def rounding(architecture: int) -> Iterator[Case]:
    """Kernels that round activations or scale products."""
    rounds = {"SMALLEST": 1e-30, "BLOCK": 4096, "ONE_BLOCK": True}
    integers = {"LIMIT": 127.0, "INTEGER": True, **rounds}
    floats = {"LIMIT": 448.0, "INTEGER": False, **rounds}
    sizes = {"scales": "*fp32", "K": "i32", "x_stride": "i32"}
    longer = {"BLOCK": 16384, "ONE_BLOCK": False}
    to_int8 = {"x": "*bf16", "codes": "*i8", **sizes}
    yield Case("quantize_rows", to_int8, {"FIRST": "", **integers}, label="int8")
    yield Case("quantize_rows", to_int8, {"FIRST": "gelu", **integers, **longer}, 16, label="gelu")
    products = {"products": "*i32", "row_scales": "*fp32", "column_scales": "*fp32"}
    products |= {"bias": "*bf16", "out": "*bf16", "N": "i32"}
    flags = {"PER_COLUMN": True, "HAS_BIAS": True, "BLOCK": 4096}
    yield Case("scale_products", products, flags)
    if GPUS[architecture].float8:
        to_fp8 = {"x": "*bf16", "codes": "*fp8e4nv", **sizes}
        yield Case("quantize_rows", to_fp8, {"FIRST": "swiglu", **floats}, label="fp8 swiglu")
        by = {"x": "*bf16", "codes": "*fp8e4nv", "scale": "*fp32", "COUNT": "i32"}
        yield Case("quantize_by", by, {"LIMIT": 448.0, "BLOCK": 4096})
    if architecture >= 80:
        low = {"x": "*bf16", "codes": "*i8", "scales": "*fp32", "down": "*bf16", "low": "*bf16"}
        low |= dict.fromkeys(("M", "K", "R", "x_stride"), "i32")
        ranks = {"LIMIT": 127.0, "INTEGER": True, "SMALLEST": 1e-30}
        ranks |= {"RANK": 16, "BLOCK_M": 16, "BLOCK_K": 256}
        yield Case("quantize_rows_low", low, ranks)


CODED = {
    "int8": (Int8(), "*i8", "*fp32"),
    "fp8": (Float8(), "*u8", "*fp32"),
    "int4": (Int4(), "*u8", "*bf16"),
    "nf4": (Code4("nf4", double_quant=True), "*u8", "*u8"),
    "nvfp4": (NVFP4(), "*u8", "*u8"),
    "fp6": (FloatX(3, 2), "*u8", "*fp32"),
}


def _decoding_parts(name: str, architecture: int) -> tuple[dict, dict]:
    fmt, codes, scales = CODED[name]
    coding = fmt.coding
    zeros = "*bf16" if coding.zero == "stored" else "*fp32"
    arguments = {"codes": codes, "table": "*fp32", "scales": scales, "zeros": zeros}
    arguments |= {"scale_2": "*fp32", "dynamic": "*fp32"}
    constants = {
        "BITS": coding.bits,
        "VALUES": coding.values,
        "PACKING": coding.packing,
        "SCALES": coding.scales,
        "GROUP": coding.group,
        "GROUP_ROWS": coding.group_rows,
        "SCALE_VALUES": coding.scale_values,
        "ZERO": coding.zero,
        "HAS_SCALE_2": name in ("nf4", "nvfp4"),
        "IN_HARDWARE": architecture >= 89,
    }
    return arguments, constants


def decoding(architecture: int, names=tuple(CODED)) -> Iterator[Case]:
    """Kernels that decode weights, one with a LoRA."""
    for name in names:
        arguments, constants = _decoding_parts(name, architecture)
        sizes = dict.fromkeys(("FIRST", "N", "K", "R", "ROW_BYTES", "GROUPS"), "i32")
        arguments = {**arguments, "up": "*bf16", "down": "*bf16", "out": "*bf16", **sizes}
        plain = {**constants, "WHOLE": False, "RANK": 0, "BLOCK_N": 4, "BLOCK_K": 512}
        yield Case("dequantize", arguments, plain, label=name)
        if name == "int8" and architecture >= 80:
            ranks = {**constants, "WHOLE": False, "RANK": 16, "BLOCK_N": 32, "BLOCK_K": 128}
            yield Case("dequantize", arguments, ranks, label=f"{name} with a LoRA")


def _stored_linear(name: str, architecture: int, high: int) -> Case:
    arguments, constants = _decoding_parts(name, architecture)
    sizes = dict.fromkeys(("M", "N", "K", "ROW_BYTES", "GROUPS"), "i32")
    arguments = {"x": "*bf16", **arguments, "bias": "*bf16", "out": "*bf16", **sizes}
    constants |= {"HAS_BIAS": True, "BLOCK_M": high, "BLOCK_N": 32}
    constants["BLOCK_K"] = 64
    return Case("stored_linear", arguments, constants, stages=2, label=f"{name}, {high} rows")


def _product(tile: Tile, kind: str, rank: int, architecture: int) -> Case:
    described = architecture >= 90
    x, codes = (
        f"tensordesc<{kind}[{size}, {tile.along}]>" if described else f"*{kind}"
        for size in (tile.rows, tile.columns)
    )
    arguments = {"x": x, "codes": codes, "row_scales": "*fp32", "column_scales": "*fp32"}
    arguments |= {"bias": "*bf16", "low": "*bf16", "up": "*bf16", "out": "*bf16"}
    arguments |= dict.fromkeys("MNKR", "i32")
    constants = {"DESCRIBED": described, "FLOATING": kind != "i8", "PER_COLUMN": True}
    constants |= {"HAS_BIAS": True, "RANK": rank, "BAND": 8}
    constants |= {"BLOCK_M": tile.rows, "BLOCK_N": tile.columns, "BLOCK_K": tile.along}
    label = f"{tile} {kind}" + (f" rank {rank}" if rank else "")
    return Case("product", arguments, constants, tile.warps, tile.stages, label)


def multiplying(architecture: int, every: bool) -> Iterator[Case]:
    """Kernels that multiply. every: in all tiles, and of all codings, or some of each."""
    fp8 = GPUS[architecture].float8
    if not every:
        large = tiles_for(4096)
        yield _product(large[0] if architecture != 90 else large[1], "i8", 16, architecture)
        yield _product(tiles_for(16)[0], "fp8e4nv" if fp8 else "i8", 0, architecture)
        yield _stored_linear("nf4", architecture, 16)
        return
    for tile in ALL_TILES:
        for kind in ("i8", "fp8e4nv") if fp8 else ("i8",):
            for rank in (0, 16, 32):
                yield _product(tile, kind, rank, architecture)
    for name in CODED:
        for high in (16, 32, 64, 128):
            yield _stored_linear(name, architecture, high)


def main() -> None:
    import tempfile

    for architecture in GPUS:
        cases = [*rounding(architecture), *decoding(architecture)]
        cases += multiplying(architecture, every=True) if architecture >= 80 else []
        with tempfile.TemporaryDirectory() as folder:
            for case in cases:
                try:
                    found = case.compile(architecture, Path(folder))
                except Exception as problem:  # a compiler's no, which is what is asked
                    print(f"SM {architecture}: {case}: {str(problem).partition(chr(10))[0]}")
                    continue
                by = next((name for name in ("wgmma", "mma.sync") if name in found.ptx), "")
                much = "" if found.shared <= GPUS[architecture].shared else "too much shared memory"
                print(f"SM {architecture}: {case}: {found} {by} {much}", flush=True)


if __name__ == "__main__":
    main()
