"""The same products on a GPU: which way FP8 goes, small M, and no graph break."""

import pytest
import torch
import torch.nn.functional as F

from graphquant.quant_core.formats import Float8, Int4, Int8
from graphquant.quant_core.hardware import check_fp8_support
from graphquant.quant_core.kernels import dispatch, plain
from graphquant.quant_core.kernels.triton import launch_products
from lab.sampling import relative_l2

pytestmark = pytest.mark.gpu

FORMATS = [
    Int8(),
    Int8(activations="int8"),
    Float8(),
    Float8(activations="float8_e4m3fn"),
    Float8(granularity="per-tensor", activations="float8_e4m3fn"),
    Int4(64),
]
BOUNDS = {"int4": 0.12, "float8": 0.05, "int8": 0.02}


def runs(fmt):
    return not (fmt.kind == "float8" and fmt.activations) or check_fp8_support("cuda")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("m", [1, 16, 17, 300])
@pytest.mark.parametrize("fmt", FORMATS, ids=str)
def test_a_linear_is_near_the_exact_one(fmt, m, dtype, normal):
    if not runs(fmt):
        pytest.skip("no FP8 matmul")
    x = normal(1, m, 256, std=1.0).to("cuda", dtype)
    weight, bias = normal(384, 256, seed=1).cuda(), normal(384, seed=2).to("cuda", dtype)
    stored = fmt.quantize(weight)
    for some in (None, bias):
        exact = F.linear(x.float(), weight, None if some is None else some.float())
        y = fmt.linear(x, stored, some)
        assert (y.dtype, y.shape) == (dtype, (1, m, 384))
        assert relative_l2(y, exact) < BOUNDS[fmt.kind]


@pytest.mark.parametrize("fmt", FORMATS, ids=str)
def test_torch_compile_traces_it_without_a_graph_break(fmt, normal):
    if not runs(fmt):
        pytest.skip("no FP8 matmul")
    x, weight = normal(300, 256, std=1.0).cuda().bfloat16(), normal(384, 256, seed=1).cuda()
    stored = fmt.quantize(weight)
    compiled = torch.compile(lambda x: fmt.linear(x, stored, None), fullgraph=True)
    assert relative_l2(compiled(x), fmt.linear(x, stored, None)) < 0.02


@pytest.fixture
def many_rows():
    """With 16384 columns more than 2 ** 31 elements."""
    if torch.cuda.get_device_properties(0).total_memory < 20 * 2**30:
        pytest.skip("needs a GPU of 20 GiB")
    yield 140_000
    torch.cuda.empty_cache()


@pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e4m3fn])
def test_the_last_of_very_many_activations_is_rounded_like_the_twin(dtype, many_rows, normal):
    x = torch.ones(many_rows, 16384, dtype=torch.bfloat16, device="cuda")
    x[-2:] = normal(2, 16384).cuda()
    codes, scale = dispatch.quantize_rows(x, dtype)
    expected, expected_scale = plain.quantize_rows(x[-2:], dtype)
    assert torch.allclose(scale[-2:], expected_scale)
    assert relative_l2(codes[-2:].float(), expected.float()) < 1e-3


def test_the_last_of_very_many_int8_products_is_right(many_rows, normal):
    if not dispatch.triton_works(torch.device("cuda", 0)):
        pytest.skip("no Triton")
    x = normal(many_rows, 64, std=40.0).to("cuda", torch.int8)
    codes = normal(16384, 64, std=40.0, seed=1).to("cuda", torch.int8)
    ones = torch.ones(many_rows, 1, device="cuda")
    scales = (ones, ones[:16384].view(1, -1))
    exact = x[-20:].float() @ codes.float().T
    for tile in launch_products.ALL_TILES:
        y = launch_products.product(x, codes, *scales, None, torch.bfloat16, tile=tile)
        assert relative_l2(y[-20:].float(), exact) < 5e-3
