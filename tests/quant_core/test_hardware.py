"""What the machine can do, and the method that follows from it."""

import pytest
import torch

from graphquant.quant_core import (
    Hardware,
    check_fp8_support,
    get_recommended_method,
    hardware_of,
)


def test_a_cpu_is_named_and_does_not_count_as_multiplying_fp8():
    assert hardware_of("cpu") == Hardware("cpu", "CPU", fp8_matmul=False)
    assert check_fp8_support("cpu") is False
    assert check_fp8_support(torch.device("cpu")) is False


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA GPU")
def test_without_an_accelerator_the_default_is_the_cpu():
    assert hardware_of() == hardware_of("cpu")
    assert check_fp8_support() is False
    assert get_recommended_method() == "int8"


def test_fp8_dynamic_is_recommended_where_fp8_is_multiplied_and_int8_elsewhere(fp8_hardware, cpu):
    assert get_recommended_method(fp8_hardware) == "fp8-dynamic"
    assert get_recommended_method(cpu) == "int8"
    assert get_recommended_method(Hardware("cuda", "NVIDIA RTX 3090", fp8_matmul=False)) == "int8"


@pytest.mark.gpu
def test_the_probe_agrees_with_the_capability_of_an_nvidia_gpu():
    expected = torch.cuda.get_device_capability() >= (8, 9)
    assert check_fp8_support("cuda") is expected
    hardware = hardware_of()
    assert hardware.fp8_matmul is expected
    assert (hardware.device, hardware.name) == ("cuda", torch.cuda.get_device_name())
