"""What comfy-kitchen really does here, and what it says of machines that are not here."""

import json

import pytest
import torch

pytestmark = pytest.mark.usefixtures("comfy")

CPU = torch.device("cpu")
MATMULS = {"int8 matmul", "int4 matmul (ConvRot)"}


@pytest.fixture
def states(monkeypatch):
    """states(cuda={...}) makes comfy-kitchen say so of its backends."""
    import comfy_kitchen

    def make(**changed):
        found = comfy_kitchen.list_backends()
        monkeypatch.setattr(
            comfy_kitchen,
            "list_backends",
            lambda: {name: {**state, **changed.get(name, {})} for name, state in found.items()},
        )

    return make


def backends():
    from graphquant.nodes.capability.kitchen import kitchen_backends

    return {backend.name: backend for backend in kitchen_backends()}


def has_scaled_mm():
    return tuple(map(int, torch.__version__.split(".")[:2])) >= (2, 14)


def test_on_a_cpu_the_integer_matmuls_are_plain_pytorch_and_the_others_run_nowhere():
    from graphquant.nodes.capability.kitchen import examine_kitchen

    found = examine_kitchen(CPU)
    ran = {operation.name: operation.backend for operation in found.operations}
    # Since 2.14 PyTorch has the operator on CPUs: for FP8, and for blocks with a reason not to.
    newer = {"fp8 matmul"} if has_scaled_mm() else set()
    assert {name for name in ran if name.endswith(("matmul", ")")) and ran[name]} == MATMULS | newer
    assert ran["int8 matmul"] == ran["fp8 quantize"] == ran["rotary embedding"] == "eager"
    nowhere = [op for op in found.operations if op.backend is None]
    assert {op.name for op in nowhere} == {"fp8 matmul", "nvfp4 matmul", "mxfp8 matmul"} - newer
    words = "does not support" if newer else "Could not run"
    assert all(words in op.reason and len(op.reason) < 170 for op in nowhere)
    assert found.emulated == ("fp8", "mxfp8", "nvfp4")
    assert json.loads(json.dumps(found.to_dict()))["version"] == found.version


def test_what_kitchen_dispatches_to_is_what_really_runs(monkeypatch):
    """The registry answers for the call that ComfyUI's own INT8 layers make."""
    from comfy.quant_ops import QuantizedTensor
    from comfy_kitchen import registry

    asked = []
    real = registry.get_capable_backend

    def spy(name, kwargs=None):
        backend = real(name, kwargs)
        asked.append((name, backend))
        return backend

    weight = QuantizedTensor.from_float(torch.ones(32, 256), "TensorWiseINT8Layout")
    monkeypatch.setattr(registry, "get_capable_backend", spy)
    torch.nn.functional.linear(torch.ones(32, 256), weight)
    assert ("int8_linear", "eager") in asked


def test_cuda_below_13_is_named_with_its_remedy(states, monkeypatch):
    states(cuda={"available": True, "disabled": True, "unavailable_reason": None})
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    cuda = backends()["cuda"]
    assert not cuda.used
    assert cuda.reason.endswith("this PyTorch has CUDA 12.8")
    assert cuda.remedy == "Needs cu130: install a PyTorch for CUDA 13 or newer."


def test_triton_that_is_off_is_named_with_its_switch(states):
    states(triton={"available": True, "disabled": True, "unavailable_reason": None})
    assert backends()["triton"].remedy == "Start ComfyUI with --enable-triton-backend."


def test_triton_stays_off_on_amd_without_a_remedy(states, monkeypatch):
    monkeypatch.setattr(torch.version, "hip", "7.1")
    states(triton={"available": True, "disabled": True, "unavailable_reason": None})
    assert backends()["triton"].remedy == ""


def test_a_missing_triton_is_named_with_its_package(states):
    reason = "ImportError: No module named 'triton'"
    states(triton={"available": False, "disabled": True, "unavailable_reason": reason})
    triton = backends()["triton"]
    assert triton.reason == reason
    assert "triton-windows" in triton.remedy


def test_a_backend_in_use_needs_nothing(states):
    states(cuda={"available": True, "disabled": False, "unavailable_reason": None})
    cuda = backends()["cuda"]
    assert (cuda.used, cuda.reason, cuda.remedy) == (True, "", "")


def test_plain_pytorch_says_why_the_faster_backend_declined(states, monkeypatch):
    from comfy_kitchen import registry
    from comfy_kitchen.constraints import ValidationResult

    from graphquant.nodes.capability.kitchen import examine_kitchen

    states(cuda={"available": True, "disabled": False, "unavailable_reason": None})
    real = registry.validate_backend_for_call

    def validate(backend, function, kwargs):
        if backend == "cuda":
            return ValidationResult.fail("__hardware__", "compute capability 7.0 < required 7.5")
        return real(backend, function, kwargs)

    monkeypatch.setattr(registry, "validate_backend_for_call", validate)
    operations = {op.name: op for op in examine_kitchen(CPU).operations}
    assert operations["int8 matmul"].reason == "cuda: compute capability 7.0 < required 7.5"


def test_a_function_that_this_kitchen_lacks_is_answered_not_raised(monkeypatch):
    from graphquant.nodes.capability import kitchen

    monkeypatch.setitem(kitchen._CALLS, "new matmul", ("no_such_function", kitchen._int8_matmul))
    operations = {op.name: op for op in kitchen.examine_kitchen(CPU).operations}
    assert operations["new matmul"].backend is None
    assert "no_such_function" in operations["new matmul"].reason


@pytest.mark.parametrize("device", ["cuda", "mps", "meta"])
def test_a_device_that_is_not_here_raises_nothing(device):
    from graphquant.nodes.capability.kitchen import examine_kitchen

    if device == "cuda" and torch.cuda.is_available():
        pytest.skip("the device is here")
    with torch.inference_mode():
        assert len(examine_kitchen(torch.device(device)).operations) == 7
