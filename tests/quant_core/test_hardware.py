"""What the machine can do, and the method that follows from it."""

from dataclasses import replace

import pytest
import torch

from graphquant.quant_core import (
    Hardware,
    check_fp8_support,
    get_recommended_method,
    hardware,
    hardware_of,
)
from graphquant.quant_core.hardware import int8_is_fast


def test_a_cpu_is_named_and_does_not_count_as_multiplying_fp8():
    assert hardware_of("cpu") == Hardware("cpu", "CPU", fp8_matmul=False)
    assert check_fp8_support("cpu") is False
    assert check_fp8_support(torch.device("cpu")) is False


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA GPU")
def test_without_an_accelerator_the_default_is_the_cpu():
    assert hardware_of() == hardware_of("cpu")
    assert check_fp8_support() is False
    assert get_recommended_method() == "int8"


def test_the_method_of_least_error_among_the_fast_ones_is_recommended(fp8_hardware, cpu):
    """Rotated INT8 where INT8 is fast, whatever FP8 does; FP8 where INT8 is slow; else int8."""
    ada = replace(fp8_hardware, fast_int8=True)
    ampere = Hardware("cuda", "NVIDIA RTX 3090", fp8_matmul=False, fast_int8=True)
    volta = Hardware("cuda", "NVIDIA V100", fp8_matmul=False)
    found = {each.name: get_recommended_method(each) for each in (ampere, volta, cpu)}
    assert found == {"NVIDIA RTX 3090": "int8-convrot", "NVIDIA V100": "int8", "CPU": "int8"}
    assert get_recommended_method(ada) == "int8-convrot"
    assert get_recommended_method(fp8_hardware) == "fp8-dynamic"


@pytest.mark.parametrize("each", [(7, 5), (8, 0), (8, 6), (8, 9), (12, 0), (12, 1)])
def test_int8_is_fast_from_turing_to_ada_and_on_blackwells_for_desktops(each):
    assert int8_is_fast(each)


@pytest.mark.parametrize("each", [(6, 1), (7, 0), (9, 0), (10, 0), (10, 3), (11, 0)])
def test_int8_is_not_the_fast_way_before_turing_on_hopper_and_in_data_centre_blackwell(each):
    assert not int8_is_fast(each)


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("triton", [True, False])
@pytest.mark.parametrize("capability", [(8, 6), (9, 0)])
def test_without_a_kernel_int8_is_not_fast(monkeypatch, capability, triton, compiled):
    """Plain PyTorch quantizes activations so slowly that INT8 is slower than bfloat16."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA Test")
    monkeypatch.setattr(hardware, "triton_works", lambda device: triton)
    monkeypatch.setattr(hardware, "unscaled_kinds", lambda device: () if triton else ("int8",))
    monkeypatch.setattr(hardware, "check_fp8_support", lambda device: False)
    found = hardware_of("cuda", compiled_int8=compiled)
    assert found.fast_int8 == (capability == (8, 6) and (triton or compiled))


@pytest.mark.gpu
def test_the_probe_agrees_with_the_capability_of_an_nvidia_gpu():
    expected = torch.cuda.get_device_capability() >= (8, 9)
    assert check_fp8_support("cuda") is expected
    found = hardware_of()
    assert found.fp8_matmul is expected
    assert (found.device, found.name) == ("cuda", torch.cuda.get_device_name())
