"""Capability Check, run as a class on the real ComfyUI, without a server."""

import json
import re

import pytest
import torch

from graphquant.quant_core import Hardware
from graphquant.quant_core.kernels import float8_way, product
from graphquant.quant_core.machine import benchmark_gemm, capability

pytestmark = [pytest.mark.usefixtures("comfy"), pytest.mark.usefixtures("inference_mode")]


@pytest.fixture
def node():
    from graphquant.nodes.fp8_capability_check import GQFP8CapabilityCheck

    return GQFP8CapabilityCheck


@pytest.fixture
def device(monkeypatch):
    """device("mps", "MPS", fp8_matmul=False): ComfyUI's device is this one, and layers run."""
    from graphquant.nodes import fp8_capability_check

    def fake(kind, name, fp8_matmul):
        problem = None if fp8_matmul else "no such kernel"
        error = capability._linear_error
        cpu = torch.device("cpu")
        monkeypatch.setattr(fp8_capability_check, "get_torch_device", lambda: torch.device(kind))
        monkeypatch.setattr(capability, "_identify", lambda _: ("test", None))
        monkeypatch.setitem(product.INT8_WORKS, torch.device(kind), True)
        way = "row-wise" if fp8_matmul else None
        monkeypatch.setitem(float8_way.WAYS, torch.device(kind), way)
        monkeypatch.setattr(capability, "hardware_of", lambda *_: Hardware(kind, name, fp8_matmul))
        monkeypatch.setattr(capability, "fp8_matmul_problem", lambda _: problem)
        monkeypatch.setattr(capability, "_linear_error", lambda fmt, _: error(fmt, cpu))

    return fake


def answer_of(output):
    (answer,) = output.ui["capability"]
    return json.loads(json.dumps(answer))


def _cells(report):
    """The report without the spaces that align its tables."""
    return re.sub(" +", " ", report)


def test_a_cpu_is_told_int8(node):
    output = node.execute()
    assert (output[0], output[1]) == (False, "int8")
    text = _cells(output[2])
    assert text.startswith("Use int8 on this machine: CPU runs no FP8 matmul in hardware.")
    assert "- fp8-dynamic\n fallback: runs as fp8-weight-only; dequantize + matmul; A CPU" in text
    assert "- int8 matmul\n plain PyTorch" in text
    assert f"torch {torch.__version__}" in text and "comfy-kitchen 0." in text
    assert "Benchmark" not in text
    assert answer_of(output)["recommended"] == "int8"


def test_an_fp8_gpu_is_told_fp8_dynamic(node, device):
    device("cuda", "NVIDIA H100", fp8_matmul=True)
    output = node.execute()
    assert (output[0], output[1]) == (True, "fp8-dynamic")
    assert output[2].startswith("Use fp8-dynamic on this machine: NVIDIA H100 runs FP8 matmuls")
    text = _cells(output[2])
    assert "- fp8-dynamic\n native; fp8 x fp8 matmul (torch._scaled_mm, row-wise)\n" in text


def test_a_mac_is_told_what_is_emulated(node, device):
    device("mps", "MPS", fp8_matmul=False)
    output = node.execute()
    assert (output[0], output[1]) == (False, "int8")
    assert "- int8-dynamic\n emulated; dequantize + matmul" in _cells(output[2])


def test_the_benchmark_measures_typical_shapes_in_seconds(node, monkeypatch):
    monkeypatch.setattr(benchmark_gemm, "SMALL_SHAPES", {(128, 64): 1, (64, 64): 4})
    output = node.execute(benchmark=True)
    timings = answer_of(output)["benchmark"]
    assert [timing["shape"] for timing in timings] == [[64, 64], [128, 64]]
    assert set(timings[0]["seconds"]) == {"bf16", "fp8-weight-only", "int8", "int8-dynamic"}
    assert timings[0]["speed"]["bf16"] == 1.0
    assert "## Benchmark: 256 rows of input, speed against bf16" in output[2]
    assert "- all of these\n count 5; bf16 1.00x; " in _cells(output[2])


def test_the_benchmark_takes_the_shapes_of_a_connected_model_quantized_or_not(
    node, flux_patcher, monkeypatch
):
    from graphquant.nodes.quantize_model import GQQuantizeModel

    seen = []

    def measure(shapes, methods, device, rows, on_shape):
        seen.append((shapes, tuple(methods), device.type))
        return ()

    monkeypatch.setattr(benchmark_gemm, "measure_gemms", measure)
    quantized = GQQuantizeModel.execute(flux_patcher, "int4")[0]
    node.execute(model=flux_patcher, benchmark=True)
    node.execute(model=quantized, benchmark=True)
    plain, again = seen
    assert plain == again
    shapes, methods, kind = plain
    assert shapes[(768, 256)] == 8 and sum(shapes.values()) == 42
    assert methods == ("fp8-weight-only", "int8", "int8-dynamic")
    assert kind == flux_patcher.load_device.type


def test_a_measured_int8_that_is_faster_is_recommended_instead(node, device, monkeypatch):

    seconds = {"bf16": 3.0, "fp8-dynamic": 2.0, "int8": 1.0}
    timing = benchmark_gemm.GemmTiming(256, (64, 64), 1, seconds)
    monkeypatch.setattr(benchmark_gemm, "measure_gemms", lambda *_, **__: (timing,))
    device("cuda", "NVIDIA L4", fp8_matmul=True)
    output = node.execute(benchmark=True)
    assert output[1] == answer_of(output)["recommended"] == "int8"
    assert "int8 was measured to be faster than fp8-dynamic." in output[2]
    assert output[0] is True


def test_a_benchmark_that_cannot_run_leaves_the_rest_standing(node, monkeypatch):

    def no_memory(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(benchmark_gemm, "measure_gemms", no_memory)
    output = node.execute(benchmark=True)
    assert output[1] == "int8"
    assert output[2].endswith("The benchmark did not run: CUDA out of memory.")


def test_a_cancelled_benchmark_is_cancelled(node, monkeypatch):
    import comfy.model_management as management

    management.interrupt_current_processing(True)
    with pytest.raises(management.InterruptProcessingException):
        node.execute(benchmark=True)


def test_the_fingerprint_is_the_machine_s_and_not_the_time_s(node, monkeypatch):
    import comfy_kitchen

    first = node.fingerprint_inputs()
    assert node.fingerprint_inputs(model=None, benchmark=True) == first
    assert "eager" in first
    state = {name: {**s, "disabled": True} for name, s in comfy_kitchen.list_backends().items()}
    monkeypatch.setattr(comfy_kitchen, "list_backends", lambda: state)
    assert node.fingerprint_inputs() != first
