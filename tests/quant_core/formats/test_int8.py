"""INT8: torchao's codes on float32 weights, and the error that 8 bits allow."""

import pytest
import torch
import torch.nn.functional as F
from torchao.quantization import Int8Tensor, PerRow, PerTensor

from graphquant.quant_core.formats import Int8
from graphquant.quant_core.kernels import dispatch, product
from lab.sampling import relative_l2

GRANULARITIES = {"per-row": PerRow(), "per-tensor": PerTensor()}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("granularity", "bound"), [("per-row", 0.0086), ("per-tensor", 0.0113)])
def test_the_error_on_gaussian_weights(granularity, bound, dtype, normal):
    weight = normal(1024, 1024, dtype=dtype)
    error = relative_l2(Int8(granularity).quantize(weight).dequantize(), weight)
    assert 0.005 < error <= bound


@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("shape", [(256, 384), (33, 7), (1, 1)])
def test_codes_and_scales_are_torchaos_on_float32_weights(granularity, shape, normal):
    weight = normal(*shape)
    ours = Int8(granularity).quantize(weight)
    theirs = Int8Tensor.from_hp(weight, GRANULARITIES[granularity])
    assert torch.equal(ours.qdata, theirs.qdata)
    assert torch.equal(ours.scale.flatten(), theirs.scale.flatten())
    assert ours.scale.dtype == theirs.scale.dtype == torch.float32


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_bfloat16_weights_are_rounded_in_float32_no_worse_than_by_torchao(granularity, normal):
    weight = normal(256, 1024, dtype=torch.bfloat16)
    ours = Int8(granularity).quantize(weight)
    assert torch.equal(ours.qdata, Int8(granularity).quantize(weight.float()).qdata)
    theirs = Int8Tensor.from_hp(weight, GRANULARITIES[granularity])
    error = relative_l2(ours.dequantize(torch.float32), weight)
    assert error < relative_l2(theirs.dequantize(torch.float32), weight)


def test_codes_by_hand():
    weight = Int8().quantize(torch.tensor([[127.5, -127.5, 1.4, -0.6], [0.0, 0.0, 255.0, 1.0]]))
    assert weight.qdata.tolist() == [[127, -128, 1, -1], [0, 0, 127, 0]]
    assert weight.scale.tolist() == [[1.0], [2.0]]
    assert weight.dequantize().tolist() == [[127, -128, 1, -1], [0, 0, 254, 0]]


def test_one_scale_a_row_saves_a_small_row_that_one_a_tensor_loses(normal):
    weight = normal(64, 256)
    weight[1:] *= 100
    by_row, by_tensor = (Int8(g).quantize(weight).dequantize()[0] for g in GRANULARITIES)
    assert relative_l2(by_row, weight[0]) < 0.0086
    assert relative_l2(by_tensor, weight[0]) > 0.5


@pytest.mark.parametrize("columns", [1, 2, 3])
@pytest.mark.parametrize("activations", [None, "int8"])
def test_a_tiny_k_works(columns, activations, normal):
    fmt, weight, x = Int8(activations=activations), normal(32, columns), normal(5, columns, std=1.0)
    stored = fmt.quantize(weight)
    assert 0 < relative_l2(stored.dequantize(), weight) < 0.006
    assert 0 < relative_l2(fmt.linear(x, stored, None), F.linear(x, weight)) < 0.01


def test_int8_activations_multiply_integers_and_lose_little_more(normal):
    weight, x = normal(512, 1024), normal(64, 1024, std=1.0, seed=1)
    exact = F.linear(x, weight)
    stored = Int8().quantize(weight)
    weight_only = relative_l2(Int8().linear(x, stored, None), exact)
    dynamic = relative_l2(Int8(activations="int8").linear(x, stored, None), exact)
    assert 0.005 < weight_only < dynamic < 0.0125


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_the_integer_product_by_hand(granularity):
    fmt = Int8(granularity, activations="int8")
    weight = fmt.quantize(torch.tensor([[-127.5, 63.0], [0.0, -127.5]]))
    x = torch.tensor([[127.0, -1.0], [0.0, 0.5]])
    y = fmt.linear(x, weight, torch.tensor([0.0, 0.25]))
    assert torch.allclose(y, torch.tensor([[-128.0 * 127 - 63, 128.25], [31.5, -63.75]]))


def test_the_kernel_is_named_where_it_runs_only(monkeypatch):
    fmt, gpu = Int8(activations="int8"), torch.device("cuda", 0)
    monkeypatch.setitem(dispatch.TRITON_WORKS, gpu, False)
    monkeypatch.setitem(product.INT8_WORKS, gpu, True)
    assert fmt.kernel(gpu) == "int8 x int8 matmul (torch._int_mm)"
    monkeypatch.setitem(product.INT8_WORKS, gpu, False)
    assert fmt.kernel(gpu) == "dequantize + matmul, weight-only: no INT8 matmul here"
    assert fmt.kernel(torch.device("cpu")) == "int8 x int8 matmul (torch._int_mm)"
    assert fmt.kernel(torch.device("mps")) == "dequantize + matmul"


@pytest.mark.gpu
@pytest.mark.parametrize(("rows", "inside"), [(16, False), (17, True)])
def test_on_a_gpu_activations_of_few_rows_are_not_rounded_and_of_more_are(rows, inside, normal):
    fmt = Int8(activations="int8")
    weight, x = normal(512, 1024), normal(rows, 1024, std=1.0, seed=1)
    stored = fmt.quantize(weight.cuda())
    y = fmt.linear(x.cuda(), stored, None).cpu()
    assert relative_l2(y, F.linear(x, weight)) < 0.0125
    on_cpu = fmt.linear(x, stored.map(torch.Tensor.cpu), None)
    assert (relative_l2(y, on_cpu) < 1e-6) == inside
