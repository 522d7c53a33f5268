"""What every method is on a machine. Devices that are not here are faked where they are touched:
who the device is, whether its FP8 matmul runs, and the layer that is tried on it."""

import json
from types import SimpleNamespace

import pytest
import torch

from graphquant.quant_core import METHODS, Hardware
from graphquant.quant_core.formats import MXFP8, NVFP4, BlockFloat8, Float8, Int8
from graphquant.quant_core.kernels import float8_way, product
from graphquant.quant_core.machine import capability
from graphquant.quant_core.machine.capability import (
    EMULATED,
    FALLBACK,
    NATIVE,
    REFUSED,
    examine,
    linear_problem,
)
from graphquant.quant_core.methods import MEASURED

NO_KERNEL = (
    "torch._scaled_mm is only supported on CUDA devices with compute capability >= 9.0 or 8.9, "
    "or ROCm MI300+"
)


@pytest.fixture
def machine(monkeypatch):
    """machine(device, name, architecture=, hip=, fp8_problem=, refuse=) -> Capability of it."""
    real = capability._linear_error

    def make(device, name, architecture=None, hip=None, fp8_problem=None, refuse=None):
        def linear_error(fmt, _):
            if refuse:
                refuse(fmt)
            return real(fmt, torch.device("cpu"))

        hardware = Hardware(device, name, fp8_matmul=fp8_problem is None)
        monkeypatch.setattr(capability, "hardware_of", lambda *_: hardware)
        monkeypatch.setattr(capability, "fp8_matmul_problem", lambda _: fp8_problem)
        monkeypatch.setattr(capability, "_linear_error", linear_error)
        way = None if fp8_problem else "row-wise"
        monkeypatch.setitem(float8_way.WAYS, torch.device(device), way)
        monkeypatch.setitem(product.INT8_WORKS, torch.device(device), True)
        monkeypatch.setattr(torch.version, "hip", hip)
        if hip:
            found = SimpleNamespace(gcnArchName=f"{architecture}:sramecc+:xnack-")
            monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: found)
        elif architecture:
            numbers = tuple(map(int, architecture.split(".")))
            monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: numbers)
        return examine(torch.device(device))

    return make


def by_method(found):
    return {method.method: method for method in found.methods}


@pytest.mark.parametrize(
    ("name", "architecture"),
    [("RTX 2080", "7.5"), ("A100", "8.0"), ("RTX 3090", "8.6")],
)
def test_an_nvidia_gpu_before_8_9_falls_back_from_fp8_and_has_int8(machine, name, architecture):
    found = machine("cuda", name, architecture, fp8_problem=NO_KERNEL)
    methods = by_method(found)
    assert (found.fp8_supported, found.recommended) == (False, "int8")
    assert (found.machine.vendor, found.machine.architecture) == ("nvidia", architecture)
    dynamic = methods["fp8-dynamic"]
    assert (dynamic.status, dynamic.runs_as) == (FALLBACK, "fp8-weight-only")
    assert dynamic.reason == NO_KERNEL
    assert dynamic.remedy.startswith("FP8 matmuls need compute capability 8.9")
    others = set(METHODS) - {"none", *MEASURED, "fp8-dynamic", "int4-dynamic", "mxfp8", "nvfp4"}
    assert {methods[name].status for name in others} == {NATIVE}
    assert methods["int8-dynamic"].kernel == "int8 x int8 matmul (torch._int_mm)"


@pytest.mark.parametrize(
    ("name", "architecture"),
    [("RTX 4090", "8.9"), ("H100", "9.0"), ("B200", "10.0"), ("RTX 5090", "12.0")],
)
def test_an_nvidia_gpu_from_8_9_on_runs_fp8(machine, name, architecture):
    found = machine("cuda", name, architecture)
    assert (found.fp8_supported, found.recommended) == (True, "fp8-dynamic")
    dynamic = by_method(found)["fp8-dynamic"]
    assert (dynamic.status, dynamic.runs_as) == (NATIVE, "fp8-dynamic")
    assert dynamic.kernel == "fp8 x fp8 matmul (torch._scaled_mm, row-wise)"
    assert dynamic.reason == dynamic.remedy == ""


def test_a_new_gpu_under_an_old_pytorch_is_told_what_to_install(machine):
    problem = "CUDA error: CUBLAS_STATUS_NOT_SUPPORTED when calling cublasLtMatmul"
    dynamic = by_method(machine("cuda", "RTX 5090", "12.0", fp8_problem=problem))["fp8-dynamic"]
    assert (dynamic.status, dynamic.reason) == (FALLBACK, problem)
    assert "cu130" in dynamic.remedy


@pytest.mark.parametrize("architecture", ["gfx942", "gfx950", "gfx1201"])
def test_an_amd_gpu_that_runs_fp8_is_recommended_fp8(machine, architecture):
    found = machine("cuda", "AMD Instinct", architecture, hip="7.1")
    assert (found.machine.vendor, found.machine.architecture) == ("amd", architecture)
    assert found.machine.versions["ROCm"] == "7.1"
    assert found.recommended == "fp8-dynamic"


def test_an_amd_gpu_without_fp8_falls_back(machine):
    found = machine("cuda", "RX 6800", "gfx1030", hip="7.1", fp8_problem=NO_KERNEL)
    dynamic = by_method(found)["fp8-dynamic"]
    assert (dynamic.status, found.recommended) == (FALLBACK, "int8")
    assert "MI300" in dynamic.remedy and "compute capability" not in dynamic.remedy


def test_a_mac_is_refused_fp8_and_emulates_int8_matmuls(machine):
    def refuse(fmt):
        if isinstance(fmt, Float8 | BlockFloat8 | MXFP8 | NVFP4):
            raise TypeError("Trying to convert Float8_e4m3fn to the MPS backend. More words.")

    found = machine("mps", "MPS", fp8_problem="PyTorch has no FP8 matmul on mps.", refuse=refuse)
    methods = by_method(found)
    assert (found.machine.vendor, found.recommended) == ("apple", "int8")
    for name in ("fp8-dynamic", "fp8-weight-only"):
        assert methods[name].status == REFUSED
        assert methods[name].reason == "Trying to convert Float8_e4m3fn to the MPS backend"
        assert methods[name].remedy == "Use int8."
    assert (methods["int8"].status, methods["int4"].status) == (NATIVE, NATIVE)
    assert methods["int8-dynamic"].status == EMULATED
    assert methods["int8-dynamic"].kernel == "dequantize + matmul"
    fp8 = {"fp8-dynamic", "fp8-weight-only", "fp8-block", "mxfp8", "nvfp4"}
    assert found.running == tuple(m for m in METHODS if m not in {"none", *MEASURED, *fp8})


def test_a_gpu_that_this_pytorch_has_no_kernels_for_refuses_all(machine):
    def refuse(_):
        raise RuntimeError("CUDA error: no kernel image is available for execution on the device")

    found = machine("cuda", "Tesla M40", "5.2", fp8_problem=NO_KERNEL, refuse=refuse)
    assert {method.status for method in found.methods} == {REFUSED}
    assert by_method(found)["int8"].remedy.startswith("This PyTorch does not run here")
    assert found.running == ()


def test_the_cpu_here_answers_for_itself():
    found = examine(torch.device("cpu"))
    methods = by_method(found)
    assert list(methods) == [name for name in METHODS if name not in ("none", *MEASURED)]
    assert (found.machine.vendor, found.machine.architecture) == ("cpu", None)
    assert (found.fp8_supported, found.recommended) == (False, "int8")
    dynamic = methods.pop("fp8-dynamic")
    assert (dynamic.status, dynamic.reason) == (FALLBACK, "A CPU has no FP8 matmul in hardware.")
    # No device multiplies INT8 by INT4 with a scale a group, and only Blackwell block formats.
    for name in ("int4-dynamic", "mxfp8", "nvfp4"):
        found_as = methods.pop(name)
        assert found_as.status == EMULATED
        assert found_as.remedy.startswith(f"Use {METHODS[name].weight_only}: ")
    assert {method.status for method in methods.values()} == {NATIVE}
    assert found.machine.versions["torch"] == torch.__version__
    assert found.machine.versions["torchao"].startswith("0.")
    assert json.loads(json.dumps(found.to_dict()))["recommended"] == "int8"


def test_a_device_that_computes_nothing_is_answered_not_raised():
    found = examine(torch.device("meta"))
    assert {method.status for method in found.methods} == {REFUSED}


def test_wrong_numbers_are_a_refusal(monkeypatch):
    monkeypatch.setattr(Int8, "linear", lambda self, x, weight, bias: torch.zeros(32, 64))
    assert linear_problem(Int8(), torch.device("cpu")) == "It computes wrong numbers, 100% off."
    monkeypatch.setattr(Int8, "linear", lambda *_: torch.full((32, 64), torch.nan))
    assert linear_problem(Int8(), torch.device("cpu")) is not None


def test_examining_works_in_inference_mode():
    with torch.inference_mode():
        assert by_method(examine(torch.device("cpu")))["int8"].status == NATIVE
