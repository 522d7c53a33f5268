"""The speed and memory that a large GPU owes: bars for an H100 or H200, measured by the benchmarks.

They take minutes, 45 GiB of the GPU's memory and 90 of the computer's: 24 GB of random weights in
each of seven forms. ``benchmarks.on_a_gpu`` measures the same once, and keeps what it measured.
"""

import pytest
import torch

from benchmarks import lora, quantize, step

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("comfy")]

GPU = torch.device("cuda")


def needs_a_large_gpu():
    total = torch.cuda.get_device_properties(GPU).total_memory / 2**30
    if torch.cuda.get_device_capability() != (9, 0) or total < 70:
        pytest.skip("the bars are for a Hopper GPU of 80 GB and more")


@pytest.fixture(scope="module")
def results(comfy):
    """One run of benchmarks.step, eager and where there is a bar compiled."""
    needs_a_large_gpu()
    return step.measure(step.METHODS, GPU, 3, tuple(step.COMPILED_BARS))


@pytest.mark.parametrize(("method", "bar"), step.EAGER_BARS.items())
def test_an_eager_step_is_this_much_faster_than_bf16s(method, bar, results):
    assert step.speeds(results, "eager")[method] >= bar


@pytest.mark.parametrize(("method", "bar"), step.COMPILED_BARS.items())
def test_a_compiled_step_is_this_much_faster_than_compiled_bf16s(method, bar, results):
    assert step.speeds(results, "compiled")[method] >= bar


@pytest.mark.parametrize(("method", "bar"), step.MEMORY_BARS.items())
def test_the_peak_memory_of_a_step_is_this_share_of_bf16s(method, bar, results):
    assert step.memory_shares(results)[method] <= bar


@pytest.mark.parametrize("method", ["fp8-dynamic", "int8"])
def test_a_lora_of_rank_16_beside_the_codes_costs_three_hundredths_of_a_step(method):
    needs_a_large_gpu()
    assert lora.overheads(lora.measure((method,), (16,), GPU, 5), 16)[method] <= lora.BAR


@pytest.mark.parametrize("method", ["fp8-weight-only", "int8"])
def test_a_gpu_quantizes_five_gigabytes_of_bf16_a_second(method):
    needs_a_large_gpu()
    assert quantize.measure(3072, 4, GPU, 5)[method]["gigabytes a second"] >= 5
