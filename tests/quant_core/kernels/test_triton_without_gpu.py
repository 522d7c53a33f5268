"""Triton's kernels on a CPU: run by its interpreter, and compiled for GPUs that are not there."""

import os
import re
import subprocess
import sys
import time

import pytest

from graphquant.quant_core.kernels.launch import has_triton
from lab.pack import ROOT

pytestmark = pytest.mark.skipif(not has_triton(), reason="Triton is not installed")


def test_the_kernels_equal_their_twins_in_the_interpreter():
    """In a process of its own: Triton reads the flag when it is imported."""
    tests = "tests/quant_core/kernels/test_triton.py"
    process = subprocess.run(
        [sys.executable, "-m", "pytest", tests, "-q", "-x", "-p", "no:cacheprovider"],
        cwd=ROOT,
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stdout[-3000:]
    assert int(re.search(r"(\d+) passed", process.stdout)[1]) >= 50
    assert "skipped" not in process.stdout.splitlines()[-1]


ROUNDING = {"LIMIT": 448.0, "SMALLEST": 1e-30, "INTEGER": False}
INTEGERS = {"LIMIT": 127.0, "SMALLEST": 1e-30, "INTEGER": True}
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
        "maximum_of_tensor",
        {"x": "*bf16", "largest": "*i32", "COUNT": "i32"},
        {"BLOCK": 8192},
        False,
    ),
    (
        "quantize_tensor",
        {
            "x": "*bf16",
            "largest": "*i32",
            "codes": "*fp8e4nv",
            "scale_out": "*fp32",
            "COUNT": "i32",
        },
        {**ROUNDING, "BLOCK": 8192},
        True,
    ),
    (
        "dequantize_scaled",
        {"codes": "*u8", "scales": "*fp32", "out": "*bf16", "K": "i32"},
        {"MANTISSA": 3, "BIAS": 7, "SPECIAL": 127, "PER_ROW": True, "BLOCK": 4096},
        False,
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
]


@pytest.mark.parametrize("architecture", [80, 89, 90, 120])
def test_every_kernel_compiles_in_seconds_for_gpus_that_are_not_there(
    architecture, tmp_path, monkeypatch
):
    """For FP8 results SM 8.9 is the first; FP8 weights are read before."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from graphquant.quant_core.kernels import triton_kernels

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    seconds = 0.0
    for name, arguments, constants, makes_float8 in CASES:
        if makes_float8 and architecture < 89:
            continue
        signature = {**arguments, **dict.fromkeys(constants, "constexpr")}
        source = ASTSource(getattr(triton_kernels, name), signature, constants)
        started = time.perf_counter()
        compiled = triton.compile(source, target=GPUTarget("cuda", architecture, 32))
        seconds += time.perf_counter() - started
        assert len(compiled.asm["cubin"]) > 1000
    assert seconds < 15
