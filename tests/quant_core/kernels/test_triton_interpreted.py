"""Triton's kernels on a CPU: run by its interpreter, and compiled for GPUs that are not there."""

import os
import re
import subprocess
import sys

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
