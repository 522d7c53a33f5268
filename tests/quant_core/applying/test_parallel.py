"""Two processes over gloo compute what one computes, or say in words why not."""

import json
import socket
import subprocess
import sys

import pytest

from lab.pack import ROOT

METHODS = ("int8", "int8-convrot", "fp8-weight-only", "int4", "nvfp4")


@pytest.fixture(scope="module")
def found():
    """By method: errors against one process, and what the plain ways say."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = [sys.executable, "-m", "tests.quant_core.applying.parallel_process"]
    processes = [
        subprocess.Popen(
            [*command, str(rank), port, *METHODS],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    outputs = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs[0][1][-2000:]
    return json.loads(outputs[0][0])


@pytest.mark.parametrize("method", METHODS)
def test_fsdp2_computes_what_one_process_computes(found, method):
    assert found[method]["fsdp"] == 0


@pytest.mark.parametrize("method", METHODS)
def test_tensor_parallel_computes_what_one_process_computes(found, method):
    assert found[method]["tp"] < 1e-6


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("way", ["plain fsdp", "plain tp"])
def test_what_would_divide_codes_is_refused_with_the_way_that_works(found, method, way):
    words = "ignored_params=quantized_parameters(model)"
    assert words in found[method][way] and "QuantizedColwise" in found[method][way]
