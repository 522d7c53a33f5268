"""What a layer of FLUX.1 costs a GPU in bytes, counted on tensors that have none.

Its fused q, k and v at 1024 x 1024: 4608 tokens, 3072 inputs, 9216 outputs. In bfloat16 it moves
162 MiB and holds them.
"""

from dataclasses import replace

import pytest
import torch.nn.functional as F

from graphquant.quant_core.formats import Code4, Float8, Int4, Int8, StaticFloat8
from graphquant.quant_core.hardware import Hardware, get_recommended_method
from graphquant.quant_core.kernels.product import unscaled_kinds
from graphquant.quant_core.kernels.triton.start import has_triton
from graphquant.quant_core.kernels.weight_only import chunk_rows
from lab.fake_gpu import ADA, ADA_ON_WINDOWS, AMPERE, HOPPER, fake_gpu
from lab.formats import EVERY_FORMAT
from lab.gpu_trace import MIB

pytestmark = pytest.mark.skipif(not has_triton(), reason="Triton is not installed")

M, K, N = 4608, 3072, 9216
FP8, INT8 = Float8(activations="float8_e4m3fn"), Int8(activations="int8")
GPUS = {
    "H100": HOPPER,
    "H100 by the library": replace(HOPPER, by_kernel=False),
    "H100 without Triton": replace(HOPPER, triton=False),
    "RTX 4090": ADA,
    "RTX 4090, Windows": ADA_ON_WINDOWS,
    "RTX 4090, Windows with Triton": replace(ADA_ON_WINDOWS, triton=True),
    "RTX 3090": AMPERE,
    "RTX 3090 without Triton": replace(AMPERE, triton=False),
}


def cost(gpu, fmt, rank=0):
    """Bytes that memory moves, peak bytes, and launches."""
    with fake_gpu(gpu) as session:
        x, bias, trace = session.empty(M, K), session.empty(N), session.trace
        if fmt is None:
            weight = session.empty(N, K)
            trace.hold(x, bias, weight)
            y = F.linear(x, weight, bias)
        else:
            weight = session.weight(fmt, (N, K))
            trace.hold(x, bias, *weight.tensors.values())
            if rank:
                low = session.empty(N, rank), session.empty(rank, K)
                y = fmt.linear_with_low_rank(x, weight, bias, *low)
            else:
                y = fmt.linear(x, weight, bias)
        assert y.shape == (M, N)
        return trace.memory, trace.peak, trace.launches


@pytest.mark.parametrize("gpu", GPUS)
@pytest.mark.parametrize("fmt", [FP8, StaticFloat8(input_scale=1.0), INT8], ids=str)
def test_what_claims_speed_moves_little_and_holds_little_or_is_not_recommended(fmt, gpu):
    gpu = GPUS[gpu]
    if fmt is not INT8 and gpu.float8 is None:
        pytest.skip("runs weight-only, and says so")
    plain, plain_peak, _ = cost(gpu, None)
    moved, peak, _ = cost(gpu, fmt)
    with fake_gpu(gpu):
        unscaled = unscaled_kinds(gpu.device)
    hardware = Hardware("cuda", "a GPU", gpu.float8 is not None, gpu.triton, unscaled)
    assert peak <= 1.25 * plain_peak
    kernel_lost = fmt is INT8 and gpu.triton and not gpu.by_kernel  # by the clock
    if fmt.product_kind in unscaled:
        assert moved > 1.5 * plain
        assert "Install Triton" in hardware.speed_problem(fmt.product_kind)
    elif not kernel_lost:
        assert moved <= 1.5 * plain
    if gpu.triton and gpu.by_kernel:
        assert moved <= 1.01 * plain
    runs_fp8 = gpu.float8 and "fp8" not in unscaled
    assert get_recommended_method(hardware) == ("fp8-dynamic" if runs_fp8 else "int8")


@pytest.mark.parametrize("fmt", [fmt for fmt in EVERY_FORMAT if fmt.coding], ids=str)
def test_decoding_a_weight_reads_it_once_and_writes_it_once(fmt):
    """No method is without a kernel, and each moves codes, scales and one bfloat16 weight."""
    with fake_gpu() as session:
        weight = session.weight(fmt, (N, K))
        weight.dequantize()
        least = weight.nbytes + 2 * N * K
        assert session.started == ["dequantize"]
        assert session.trace.moved <= 1.2 * least
        assert session.trace.memory <= 1.2 * least


def test_every_format_has_a_kernel():
    """Rotated ones decode to INT8 by one, and rotate by the library's matmul; SVDQuant decodes its
    residual by one, smoothed beside a branch or without it."""
    without = {fmt.kind for fmt in EVERY_FORMAT if fmt.coding is None}
    assert without <= {"int8_convrot", "rotated_groups", "svdquant", "nvfp4_smoothed"}


@pytest.mark.parametrize("fmt", [FP8, INT8], ids=str)
def test_a_lora_costs_an_8_bit_layer_no_pass_over_its_result(fmt):
    moved, peak, launches = cost(HOPPER, fmt)
    with_lora, lora_peak, lora_launches = cost(HOPPER, fmt, rank=16)
    assert with_lora <= 1.03 * moved
    assert lora_peak <= 1.02 * peak
    assert lora_launches == launches == 2


@pytest.mark.parametrize("fmt", [Int8(), Float8(), Int4(128), Code4("nf4")], ids=str)
def test_a_lora_costs_a_weight_only_layer_nothing_but_its_factors(fmt):
    moved, _, launches = cost(HOPPER, fmt)
    with_lora, _, lora_launches = cost(HOPPER, fmt, rank=16)
    assert with_lora <= 1.01 * moved
    assert lora_launches == launches


def test_chunks_are_taken_where_they_save_bytes():
    cache = 72 * MIB
    assert chunk_rows(M, N, K, 2, False, cache) == N // 2  # two of 27 MiB
    assert chunk_rows(M, N, K, 2, True, cache) == N  # the bias would cost 162 MiB, chunks save 108
    assert chunk_rows(512, N, K, 2, True, cache) == N // 2
    assert chunk_rows(512, 3072, 12288, 2, True, cache) == 3072 // 3
    assert chunk_rows(M, N, K, 2, False, 6 * MIB) == N  # nothing stays in a small cache


def test_chunks_share_one_scratch_that_stays_in_the_cache():
    fmt = Int8()
    with fake_gpu(ADA) as session:
        x, weight = session.empty(M, K), session.weight(fmt, (N, K))
        session.trace.hold(x, *weight.tensors.values())
        fmt.linear(x, weight, None)
        assert session.started == ["dequantize"] * 2
        moved = session.trace.memory
        assert session.trace.peak <= x.nbytes + weight.nbytes + 2 * M * N + 28 * MIB
    whole = x.nbytes + weight.nbytes + 2 * M * N + 2 * 2 * N * K
    assert moved < 0.8 * whole
