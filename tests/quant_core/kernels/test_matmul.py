"""Matmuls of codes by codes: the numbers, what torch.compile sees, and a CPU's passes."""

import pytest
import torch
import torch.nn.functional as F

from graphquant.quant_core.formats import Float8, Int4, Int8
from graphquant.quant_core.kernels import eight_bit_linear, quantize_rows
from graphquant.quant_core.kernels.float8_way import float8_way
from lab.counting import operations
from lab.sampling import relative_l2

FLOATS = (torch.float32, torch.bfloat16, torch.float16)


def rounded(x, dtype):
    codes, scale = quantize_rows(x.flatten(0, -2), dtype)
    return (codes.float() * scale).view(x.shape)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("bias", [None, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("granularity", ["per-row", "per-tensor"])
@pytest.mark.parametrize("shape", [(2, 37, 64), (1, 1, 64), (5, 64)])
def test_the_product_is_that_of_the_rounded_operands(shape, granularity, bias, dtype, normal):
    """A CPU multiplies FP8 with one scale a tensor, as some GPUs do."""
    x = normal(*shape, std=1.0).to(dtype)
    weight, bias = normal(48, 64, seed=1), bias and normal(48, std=0.5, seed=2).to(bias)
    for fmt, codes in (
        (Int8(granularity), torch.int8),
        (Float8(granularity=granularity), torch.float8_e4m3fn),
    ):
        stored = fmt.quantize(weight)
        y = eight_bit_linear(x, stored.qdata, stored.scale, bias)
        plain = F.linear(rounded(x, codes), stored.dequantize(torch.float32))
        expected = plain if bias is None else plain + bias.float()
        assert (y.dtype, y.shape) == (dtype, (*shape[:-1], 48))
        assert relative_l2(y, expected) < (1e-5 if dtype == torch.float32 else 4e-3)


def test_a_cpu_multiplies_fp8_with_one_scale_a_tensor():
    assert float8_way(torch.device("cpu")) == "tensor-wise"


@pytest.mark.parametrize(
    "fmt",
    [Int8(), Int8(activations="int8"), Float8(), Float8(granularity="per-tensor"), Int4(64)],
    ids=str,
)
def test_torch_compile_traces_a_linear_without_a_graph_break(fmt, normal):
    x, weight, bias = normal(40, 128, std=1.0), normal(96, 128, seed=1), normal(96, seed=2)
    stored = fmt.quantize(weight)
    compiled = torch.compile(
        lambda x: fmt.linear(x, stored, bias), fullgraph=True, backend="aot_eager"
    )
    torch.testing.assert_close(compiled(x), fmt.linear(x, stored, bias), rtol=1e-4, atol=1e-5)


def test_an_operator_tells_torch_compile_the_shapes_that_it_gives(normal):
    codes = normal(24, 64, std=40.0).to(torch.int8)
    row, column = normal(20, 1).abs(), normal(1, 24).abs()
    arguments = (codes[:20], codes, row, column, normal(24), torch.bfloat16)
    operator = torch.ops.graphquant.product
    torch.library.opcheck(
        operator.default, arguments, test_utils=("test_schema", "test_faketensor")
    )
    compiled = torch.compile(operator, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(*arguments), operator(*arguments))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_int8_dynamic_multiplies_once_and_reads_activations_and_products_once(dtype, normal):
    """On a CPU: one INT8 product, no float one, and no other tensor of full size than the codes,
    the products and the result: all else goes by blocks that fit the cache. How long that takes
    beside bfloat16 ``benchmarks.bars`` measures."""
    weight, x = normal(768, 768, seed=1), normal(1024, 768, std=1.0).to(dtype)
    fmt = Int8(activations="int8")
    stored, bias = fmt.quantize(weight), normal(768).to(dtype)
    found = operations(lambda: fmt.linear(x, stored, bias))
    products = {name: n for name, n in found.calls.items() if "mm" in name or "linear" in name}
    assert products == {"aten._int_mm.default": 1}
    assert not any("dequantize" in name for name in found.calls)
    full_size = sorted(str(kind) for kind, elements in found.new if elements >= x.numel())
    assert full_size == sorted(map(str, (torch.int8, torch.int32, dtype)))
