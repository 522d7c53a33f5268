"""Triton's kernels on a CPU: run by its interpreter, and compiled for GPUs that are not there."""

import os
import re
import subprocess
import sys

import pytest

from graphquant.quant_core.kernels.triton.start import has_triton
from lab.compiled_kernels import GPUS, CompiledKernel, decoding, multiplying, rounding
from lab.pack import ROOT

pytestmark = pytest.mark.skipif(not has_triton(), reason="Triton is not installed")

MOST_SPILLED = 64  # bytes of a thread


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


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """compiled(architecture, case): each is compiled once for all tests here."""
    done = {}
    folder = tmp_path_factory.mktemp("triton")

    def get(architecture, case) -> CompiledKernel:
        key = (architecture, str(case))
        if key not in done:
            done[key] = case.compile(architecture, folder)
        return done[key]

    return get


@pytest.mark.parametrize("architecture", GPUS)
def test_what_rounds_and_decodes_compiles_and_stays_in_registers(architecture, compiled):
    """Also for Turing, whose tensor cores Triton does not know."""
    for case in (*rounding(architecture), *decoding(architecture)):
        found = compiled(architecture, case)
        assert found.spilled <= MOST_SPILLED, (case, found)


@pytest.mark.parametrize("architecture", [a for a in GPUS if a >= 80])
def test_products_use_the_tensor_cores_of_their_gpu(architecture, compiled):
    """On Hopper by its own matmul instruction, fed by its copy engine; elsewhere tiles are fetched
    while others are multiplied."""
    for case in multiplying(architecture, every=False):
        found = compiled(architecture, case)
        instruction = "wgmma" if architecture == 90 and case.high >= 64 else "mma.sync"
        assert instruction in found.ptx, case
        fetched = "cp.async.bulk.tensor" if architecture >= 90 else "cp.async.c"
        assert fetched in found.ptx or case.name != "product", case
        assert found.spilled <= MOST_SPILLED, (case, found)
        assert found.shared <= GPUS[architecture].shared, (case, found)
