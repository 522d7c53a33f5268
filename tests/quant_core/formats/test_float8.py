"""FP8: torchao's codes on float32 weights, saturation, and the error that three bits allow."""

import pytest
import torch
import torch.nn.functional as F
from torchao.quantization import Float8Tensor, PerRow, PerTensor

from graphquant.quant_core.formats import Float8
from graphquant.quant_core.formats.float8 import fits_scaled_mm
from graphquant.quant_core.kernels import float8_way, quantize_rows
from lab.sampling import relative_l2

GRANULARITIES = {"per-row": PerRow(), "per-tensor": PerTensor()}
E4M3, E5M2 = torch.float8_e4m3fn, torch.float8_e5m2


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_the_error_on_gaussian_weights(granularity, dtype, normal):
    weight = normal(1024, 1024, dtype=dtype)
    error = relative_l2(Float8(granularity=granularity).quantize(weight).dequantize(), weight)
    assert 0.02 < error <= 0.0267


def test_two_bits_of_mantissa_cost_twice_as_much_as_three(normal):
    weight = normal(512, 512)
    errors = [
        relative_l2(Float8(dtype=dtype).quantize(weight).dequantize(), weight)
        for dtype in ("float8_e4m3fn", "float8_e5m2")
    ]
    assert 1.9 < errors[1] / errors[0] < 2.1


@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("dtype", [E4M3, E5M2])
@pytest.mark.parametrize("shape", [(256, 384), (33, 7), (1, 1)])
def test_codes_and_scales_are_torchaos_on_float32_weights(granularity, dtype, shape, normal):
    weight = normal(*shape)
    name = str(dtype).removeprefix("torch.")
    ours = Float8(dtype=name, granularity=granularity).quantize(weight)
    theirs = Float8Tensor.from_hp(
        weight, float8_dtype=dtype, granularity=GRANULARITIES[granularity]
    )
    assert ours.qdata.dtype == dtype
    assert torch.equal(ours.qdata.view(torch.uint8), theirs.qdata.view(torch.uint8))
    assert torch.equal(ours.scale.flatten(), theirs.scale.flatten())


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_bfloat16_weights_are_rounded_in_float32_no_worse_than_by_torchao(granularity, normal):
    weight = normal(256, 1024, dtype=torch.bfloat16)
    ours = Float8(granularity=granularity).quantize(weight)
    exact = Float8(granularity=granularity).quantize(weight.float())
    assert torch.equal(ours.qdata.view(torch.uint8), exact.qdata.view(torch.uint8))
    theirs = Float8Tensor.from_hp(weight, granularity=GRANULARITIES[granularity])
    error = relative_l2(ours.dequantize(torch.float32), weight)
    assert error < relative_l2(theirs.dequantize(torch.float32), weight) * 1.001


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_torchao_makes_nan_of_the_zeros_that_we_keep(granularity):
    """The reason why the scale has a floor; when torchao has one too, this can go."""
    zeros = torch.zeros(2, 16)
    theirs = Float8Tensor.from_hp(zeros, granularity=GRANULARITIES[granularity])
    assert theirs.dequantize().isnan().all()
    ours = Float8(granularity=granularity).quantize(zeros)
    assert torch.equal(ours.dequantize(), zeros)


def test_codes_by_hand():
    weight = Float8().quantize(torch.tensor([[448.0, -448.0, 17.0, 19.0], [0.0, 224.0, 0.5, 0.0]]))
    assert weight.scale.tolist() == [[1.0], [0.5]]
    assert weight.qdata.float().tolist() == [[448, -448, 16, 20], [0, 448, 1, 0]]
    assert weight.dequantize().tolist() == [[448, -448, 16, 20], [0, 224, 0.5, 0]]


@pytest.mark.parametrize("dtype", ["float8_e4m3fn", "float8_e5m2"])
@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_the_largest_magnitude_is_the_largest_code_and_never_overflows(dtype, granularity, normal):
    fmt = Float8(dtype=dtype, granularity=granularity)
    for seed in range(20):
        weight = fmt.quantize(normal(16, 64, seed=seed, dtype=torch.float16))
        assert weight.qdata.float().abs().max() == torch.finfo(fmt.storage).max


@pytest.mark.parametrize("columns", [1, 2, 3])
def test_a_tiny_k_works(columns, normal):
    weight, x = normal(32, columns), normal(5, columns, std=1.0)
    stored = Float8().quantize(weight)
    assert relative_l2(stored.dequantize(), weight) < 0.03
    assert relative_l2(Float8().linear(x, stored, None), F.linear(x, weight)) < 0.03


def test_activations_are_scaled_row_by_row_and_an_all_zero_row_stays_zero(normal):
    x = normal(4, 256, std=1.0)
    x[1] *= 1e-4
    x[2] = 0
    codes, scale = quantize_rows(x, E4M3)
    assert (codes.dtype, scale.shape) == (E4M3, (4, 1))
    assert torch.equal(codes[2].float(), torch.zeros(256))
    result = codes.float() * scale
    assert all(0.01 < relative_l2(result[row], x[row]) < 0.03 for row in (0, 1, 3))


def test_only_matrices_in_sixteens_fit_scaled_mm():
    assert fits_scaled_mm((16, 32))
    assert not any(map(fits_scaled_mm, [(24, 32), (16, 40), (16, 16, 1, 1)]))


def test_the_kernel_is_named_where_it_runs_only(monkeypatch):
    """Also of a file that was saved where FP8 is multiplied, on a GPU that does not."""
    fmt, gpu = Float8(activations="float8_e4m3fn"), torch.device("cuda", 0)
    monkeypatch.setitem(float8_way.WAYS, gpu, "row-wise")
    assert fmt.kernel(gpu) == "fp8 x fp8 matmul (torch._scaled_mm, row-wise)"
    monkeypatch.setitem(float8_way.WAYS, gpu, None)
    assert fmt.kernel(gpu) == "dequantize + matmul, weight-only: no FP8 matmul here"
    assert fmt.kernel(torch.device("cpu")) == "dequantize + matmul"


@pytest.mark.gpu
@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_on_a_gpu_fp8_is_multiplied_by_fp8(granularity, dtype, normal):
    from graphquant.quant_core import check_fp8_support

    if not check_fp8_support("cuda"):
        pytest.skip("this GPU does not multiply FP8")
    weight, x = normal(512, 1024), normal(64, 1024, std=1.0, seed=1)
    bias = normal(512, std=1.0, seed=2)
    fmt = Float8(granularity=granularity, activations="float8_e4m3fn")
    stored = fmt.quantize(weight.to("cuda", dtype))
    y = fmt.linear(x.to("cuda", dtype), stored, bias.to("cuda", dtype))
    assert y.dtype == dtype
    assert 0.01 < relative_l2(y.cpu() - bias, F.linear(x, weight)) < 0.045
    zeros = fmt.linear(torch.zeros(2, 1024, device="cuda", dtype=dtype), stored, None)
    assert torch.equal(zeros, torch.zeros_like(zeros))
