"""Triton's kernels on a CPU: run by its interpreter, and compiled for GPUs that are not there."""

import os
import re
import subprocess
import sys

import pytest

from graphquant.quant_core.kernels.launch import has_triton
from graphquant.quant_core.kernels.launch_matmul import TILES
from lab.pack import ROOT

pytestmark = pytest.mark.skipif(not has_triton(), reason="Triton is not installed")


def test_the_kernels_equal_their_twins_in_the_interpreter():
    """In a process of its own: Triton reads the flag when it is imported."""
    tests = "tests/quant_core/kernels/test_triton.py"
    process = subprocess.run(
        [sys.executable, "-m", "pytest", tests, "-q", "-x", "-p", "no:cacheprovider"],
        cwd=ROOT,
        # Threads that wait by spinning take a hundred times as long where others have the cores.
        env={**os.environ, "TRITON_INTERPRET": "1", "OMP_WAIT_POLICY": "PASSIVE"},
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stdout[-3000:]
    assert int(re.search(r"(\d+) passed", process.stdout)[1]) >= 50
    assert "skipped" not in process.stdout.splitlines()[-1]


ROUNDING = {"LIMIT": 448.0, "SMALLEST": 1e-30, "INTEGER": False}
INTEGERS = {"LIMIT": 127.0, "SMALLEST": 1e-30, "INTEGER": True}
E4M3 = {"MANTISSA": 3, "BIAS": 7, "SPECIAL": 127, "IN_HARDWARE": False}
INT4 = {"codes": "*u8", "scales": "*bf16", "zero_points": "*bf16"}
# Kernel, dtypes of its arguments in their order, constants, whether it makes FP8.
CASES = [
    (
        "quantize_rows",
        {"x": "*bf16", "codes": "*fp8e4nv", "scales": "*fp32", "K": "i32", "x_stride": "i32"},
        {**ROUNDING, "BLOCK": 4096, "ONE_BLOCK": True},
        True,
    ),
    (
        "quantize_rows",
        {"x": "*fp16", "codes": "*i8", "scales": "*fp32", "K": "i32", "x_stride": "i32"},
        {**INTEGERS, "BLOCK": 16384, "ONE_BLOCK": False},
        False,
    ),
    (
        "dequantize_scaled",
        {"codes": "*u8", "scales": "*fp32", "out": "*bf16", "K": "i32"},
        {**E4M3, "PER_ROW": True, "BLOCK": 4096},
        False,
    ),
    (
        "dequantize_scaled",
        {"codes": "*u8", "scales": "*fp32", "out": "*bf16", "K": "i32"},
        {**E4M3, "IN_HARDWARE": True, "PER_ROW": True, "BLOCK": 4096},
        True,
    ),
    (
        "dequantize_int4",
        {**INT4, "out": "*bf16", "HALF_K": "i32", "GROUPS": "i32"},
        {"HALF_GROUP": 64, "BLOCK": 2048},
        False,
    ),
    (
        "scale_products",
        {"products": "*i32", "row_scales": "*fp32", "column_scales": "*fp32", "bias": "*bf16"}
        | {"out": "*bf16", "N": "i32"},
        {"PER_COLUMN": True, "HAS_BIAS": True, "BLOCK": 4096},
        False,
    ),
    (
        "int4_linear",
        {"x": "*bf16", **INT4, "bias": "*bf16", "out": "*bf16", "M": "i32", "N": "i32"}
        | {"HALF_K": "i32"},
        {"GROUPS": 24, "HALF_GROUP": 64, "HAS_BIAS": True, "BLOCK_M": 16, "BLOCK_N": 32},
        False,
    ),
    (
        "scaled_linear",
        {"x": "*bf16", "codes": "*u8", "scales": "*fp32", "bias": "*bf16", "out": "*bf16"}
        | {"M": "i32", "N": "i32", "K": "i32"},
        {**E4M3, "PER_ROW": True, "HAS_BIAS": True, "BLOCK_M": 16, "BLOCK_N": 16, "BLOCK_K": 256},
        False,
    ),
]


@pytest.mark.parametrize("architecture", [80, 89, 90, 120])
def test_every_kernel_compiles_to_short_code_for_gpus_that_are_not_there(
    architecture, tmp_path, monkeypatch
):
    """With the warps that ``launch`` starts. Code of 3500 lines is compiled in two seconds; a loop
    that is unrolled too often makes more. For FP8 results SM 8.9 is the first; FP8 weights are read
    before."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    for name, arguments, constants, makes_float8 in CASES:
        if makes_float8 and architecture < 89:
            continue
        warps = max(4, constants.get("BLOCK", 0) // 1024)
        compiled = compile_for(architecture, name, arguments, constants, num_warps=warps)
        assert len(compiled.asm["cubin"]) > 1000
        assert len(compiled.asm["ptx"].splitlines()) <= 3500, name


def compile_for(architecture, name, arguments, constants, aligned=(), **options):
    """aligned: arguments that are multiples of 16, which a launch finds out by itself."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from graphquant.quant_core.kernels import triton_kernels, triton_matmuls

    kernel = getattr(triton_kernels, name, None) or getattr(triton_matmuls, name)
    places = {argument: (place,) for place, argument in enumerate(arguments)}
    source = ASTSource(
        kernel,
        {**arguments, **dict.fromkeys(constants, "constexpr")},
        constants,
        {places[argument]: [["tt.divisibility", 16]] for argument in aligned},
    )
    return triton.compile(source, target=GPUTarget("cuda", architecture, 32), options=options)


@pytest.mark.parametrize("tile", TILES, ids=lambda tile: f"{tile.rows} x {tile.columns}")
@pytest.mark.parametrize("architecture", [80, 89, 90, 120])
def test_int8_products_keep_tensor_cores_busy(architecture, tile, tmp_path, monkeypatch):
    """On Hopper by its own matmul instruction, fed by its copy engine; elsewhere tiles are fetched
    while others are multiplied."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    described = architecture >= 90
    x, codes = (
        f"tensordesc<i8[{size}, {tile.along}]>" if described else "*i8"
        for size in (tile.rows, tile.columns)
    )
    arguments = {"x": x, "codes": codes, "row_scales": "*fp32", "column_scales": "*fp32"}
    arguments |= {"bias": "*bf16", "out": "*bf16", "M": "i32", "N": "i32", "K": "i32"}
    constants = {"DESCRIBED": described, "PER_COLUMN": True, "HAS_BIAS": True, "BAND": 8}
    constants |= {"BLOCK_M": tile.rows, "BLOCK_N": tile.columns, "BLOCK_K": tile.along}
    aligned = [name for name in arguments if name != "M" and "desc" not in arguments[name]]
    options = {"num_warps": tile.warps, "num_stages": tile.stages}
    compiled = compile_for(architecture, "int8_product", arguments, constants, aligned, **options)
    ptx = compiled.asm["ptx"]
    assert ("wgmma" if architecture == 90 else "mma.sync") in ptx
    assert ("cp.async.bulk.tensor" if described else "cp.async.cg") in ptx
    assert ".local" not in ptx
    assert compiled.metadata.shared <= {80: 163, 89: 99, 90: 227, 120: 99}[architecture] * 1024
